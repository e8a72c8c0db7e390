#include "coordinator/engine.h"

#include <algorithm>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/engine_loop.h"

namespace dovetail::coordinator {
namespace {

struct Command {
  enum Kind { kSubmit, kCancel, kSetPipeline, kSuspendPipeline, kClearPipeline, kList };
  Kind kind;
  NewRequest request;
  RequestId id = 0;
  std::shared_ptr<Pipeline> pipeline;
  absl::Status reason;
  std::shared_ptr<std::promise<std::vector<SequenceInfo>>> list;
};

constexpr absl::Duration kLongestSleep = absl::Hours(1);

}  // namespace

// std::mutex and std::condition_variable, because ThreadSanitizer sees them whole while Debian's
// Abseil is not instrumented.
struct Engine::Impl {
  explicit Impl(const EngineOptions& engine_options)
      : max_queue(engine_options.max_queue), loop(engine_options), stats(loop.Stats()) {}

  void Run();
  void DrainInbox();
  void Execute(Command command);
  bool PrepareToSleep();
  void Sleep();
  void Post(std::unique_lock<std::mutex>& lock, Command command);

  // Outlives the engine in the hands of wakers.
  struct WakeHandle {
    std::mutex mutex;
    Impl* impl = nullptr;  // null: the engine is gone
  };
  void Poke();

  const std::shared_ptr<WakeHandle> wake_handle = std::make_shared<WakeHandle>();
  const int max_queue;
  EngineLoop loop;                // the engine's thread only, except Check()
  std::vector<Command> commands;  // being executed; here so that its memory is reused

  std::mutex mutex;
  std::condition_variable wake;     // of the engine's thread, while it has no pipeline
  std::condition_variable changed;  // of callers who wait for `cleared` or `is_idle`
  // All below under `mutex`.
  std::vector<Command> inbox;
  RequestId next_id = 1;
  int num_queued = 0;  // requests that are in the inbox or wait in the scheduler
  uint64_t clears_posted = 0;
  uint64_t clears_done = 0;
  bool stopping = false;
  bool poked = false;
  bool is_idle = true;
  int num_requests = 0;
  // The pipeline as submitters know it: SetPipeline() makes it ready at once, a loss is seen later.
  bool ready = false;
  absl::Status not_ready_reason = absl::UnavailableError("the workers are not connected yet");
  std::shared_ptr<Pipeline> wake_target;  // whom to wake while the engine's thread has a pipeline
  EngineStats stats;

  std::thread thread;
};

Engine::Engine(const EngineOptions& options) : impl_(std::make_unique<Impl>(options)) {
  impl_->wake_handle->impl = impl_.get();
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

Engine::~Engine() {
  {
    std::lock_guard<std::mutex> lock(impl_->wake_handle->mutex);
    impl_->wake_handle->impl = nullptr;
  }
  {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    impl_->stopping = true;
    impl_->ready = false;
    if (impl_->wake_target != nullptr) impl_->wake_target->Wake();
    impl_->wake.notify_one();
  }
  impl_->thread.join();
}

void Engine::Impl::Post(std::unique_lock<std::mutex>& lock, Command command) {
  inbox.push_back(std::move(command));
  is_idle = false;
  // Under the lock, so that the engine's thread cannot drop the pipeline in between.
  if (wake_target != nullptr) wake_target->Wake();
  wake.notify_one();
}

absl::StatusOr<RequestId> Engine::Submit(EngineRequest request, std::shared_ptr<TokenSink> sink) {
  absl::StatusOr<NewRequest> checked = impl_->loop.Check(std::move(request), std::move(sink));
  if (!checked.ok()) return checked.status();
  std::unique_lock<std::mutex> lock(impl_->mutex);
  if (!impl_->ready) return impl_->not_ready_reason;
  if (impl_->num_queued >= impl_->max_queue) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", impl_->num_queued, " requests are waiting"));
  }
  const RequestId id = impl_->next_id++;
  checked->sequence->id = id;
  ++impl_->num_queued;
  ++impl_->num_requests;
  Command command{Command::kSubmit};
  command.request = *std::move(checked);
  impl_->Post(lock, std::move(command));
  return id;
}

void Engine::Cancel(RequestId id) {
  std::unique_lock<std::mutex> lock(impl_->mutex);
  Command command{Command::kCancel};
  command.id = id;
  impl_->Post(lock, std::move(command));
}

void Engine::SetPipeline(std::unique_ptr<Pipeline> pipeline) {
  std::unique_lock<std::mutex> lock(impl_->mutex);
  impl_->ready = true;
  Command command{Command::kSetPipeline};
  command.pipeline = std::move(pipeline);
  impl_->Post(lock, std::move(command));
}

void Engine::SuspendPipeline(const absl::Status& reason) { DropPipeline(reason, true); }

void Engine::ClearPipeline(const absl::Status& reason) { DropPipeline(reason, false); }

void Engine::DropPipeline(const absl::Status& reason, bool come_back) {
  std::unique_lock<std::mutex> lock(impl_->mutex);
  impl_->ready = false;
  impl_->not_ready_reason = reason;
  Command command{come_back ? Command::kSuspendPipeline : Command::kClearPipeline};
  command.reason = reason;
  const uint64_t ticket = ++impl_->clears_posted;
  impl_->Post(lock, std::move(command));
  // From a callback on the engine's own thread it cannot be waited for; the pipeline is gone there
  // already.
  if (std::this_thread::get_id() == impl_->thread.get_id()) return;
  impl_->changed.wait(lock, [&] { return impl_->clears_done >= ticket; });
}

EngineStats Engine::stats() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->stats;
}

absl::StatusOr<std::vector<SequenceInfo>> Engine::ListSequences(absl::Duration timeout) {
  Command command{Command::kList};
  command.list = std::make_shared<std::promise<std::vector<SequenceInfo>>>();
  std::future<std::vector<SequenceInfo>> list = command.list->get_future();
  {
    std::unique_lock<std::mutex> lock(impl_->mutex);
    impl_->Post(lock, std::move(command));
  }
  if (list.wait_for(absl::ToChronoMilliseconds(timeout)) != std::future_status::ready) {
    return absl::DeadlineExceededError("the engine is busy with a step");
  }
  return list.get();
}

std::function<void()> Engine::Waker() const {
  return [handle = impl_->wake_handle] {
    std::lock_guard<std::mutex> lock(handle->mutex);
    if (handle->impl != nullptr) handle->impl->Poke();
  };
}

void Engine::Impl::Poke() {
  std::lock_guard<std::mutex> lock(mutex);
  poked = true;
  if (wake_target != nullptr) wake_target->Wake();
}

int Engine::WaitIdle(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(impl_->mutex);
  const auto done = [&] { return impl_->is_idle; };
  if (timeout > kLongestSleep * 24) {
    impl_->changed.wait(lock, done);
  } else {
    impl_->changed.wait_until(lock, absl::ToChronoTime(absl::Now() + timeout), done);
  }
  return impl_->num_requests;
}

void Engine::Impl::Run() {
  while (true) {
    DrainInbox();
    // Sinks may have cancelled requests while they were told of tokens: no step is wasted on those.
    if (loop.CollectOutputs(absl::Now())) DrainInbox();
    const absl::Time now = absl::Now();
    loop.ExpireRequests(now);
    loop.ScheduleSteps(now);
    if (PrepareToSleep()) Sleep();
    std::lock_guard<std::mutex> lock(mutex);
    if (stopping) break;
  }
  DrainInbox();
  loop.EndAll(FinishReason::kCancelled, absl::CancelledError("the engine is stopping"));
  loop.ClearPipeline(absl::CancelledError("the engine is stopping"));
  PrepareToSleep();
}

void Engine::Impl::DrainInbox() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    commands.swap(inbox);
  }
  for (Command& command : commands) Execute(std::move(command));
  commands.clear();
}

void Engine::Impl::Execute(Command command) {
  switch (command.kind) {
    case Command::kSubmit:
      return loop.Add(std::move(command.request), absl::Now());
    case Command::kCancel:
      return loop.Cancel(command.id);
    case Command::kSetPipeline:
      return loop.SetPipeline(std::move(command.pipeline), absl::Now());
    case Command::kList:
      return command.list->set_value(loop.ListSequences(absl::Now()));
    case Command::kSuspendPipeline:
      loop.SuspendPipeline(command.reason, absl::Now());
      break;
    case Command::kClearPipeline:
      loop.ClearPipeline(command.reason);
      break;
  }
  std::lock_guard<std::mutex> lock(mutex);
  wake_target.reset();  // before the caller goes on: it may unmap what the pipeline used
  ++clears_done;
  changed.notify_all();
}

// Publishes what other threads may see. False when commands came in meanwhile.
bool Engine::Impl::PrepareToSleep() {
  std::lock_guard<std::mutex> lock(mutex);
  wake_target = loop.pipeline();
  stats = loop.Stats();
  int num_posted = 0;
  bool pipeline_comes = false;
  for (const Command& command : inbox) {
    num_posted += command.kind == Command::kSubmit ? 1 : 0;
    pipeline_comes |= command.kind == Command::kSetPipeline;
  }
  if (ready && wake_target == nullptr && !pipeline_comes) {
    ready = false;
    not_ready_reason = absl::UnavailableError("the workers were lost");
  }
  num_queued = stats.waiting + num_posted;
  num_requests = loop.num_requests() + num_posted;
  is_idle = inbox.empty() && loop.idle();
  if (is_idle) changed.notify_all();
  return inbox.empty() && !stopping && !std::exchange(poked, false);
}

void Engine::Impl::Sleep() {
  const absl::Duration timeout = std::min(kLongestSleep, loop.UntilNextDeadline(absl::Now()));
  if (loop.pipeline() != nullptr) {
    loop.pipeline()->Wait(timeout);
    return;
  }
  std::unique_lock<std::mutex> lock(mutex);
  wake.wait_until(lock, absl::ToChronoTime(absl::Now() + timeout),
                  [&] { return stopping || !inbox.empty(); });
}

}  // namespace dovetail::coordinator
