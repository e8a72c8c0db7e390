#include "worker/executor.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "model/memory_plan.h"
#include "worker/data_plane.h"
#include "worker/device/device.h"
#include "worker/model_runner.h"
#include "worker/peer_weights.h"
#include "worker/step_sender.h"
#include "worker/weight_loader.h"

namespace dovetail::worker {
namespace {

// How long a peer may take to make room or to send the rest of a message before it counts as lost.
// The coordinator notices dead workers long before; this ends a wait that nobody else ends.
constexpr absl::Duration kPeerTimeout = absl::Seconds(30);
// How long Stop() lets the current step go on before it ends the epoch to wake it.
constexpr std::chrono::seconds kStopGrace{3};
constexpr absl::Duration kIdleWait = absl::Minutes(1);
constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

// What no other try would make better: a library, or weights, that are not there, a GPU that
// cannot.
absl::Status ForGood(const absl::Status& status) {
  const bool for_good = absl::IsNotFound(status) || absl::IsFailedPrecondition(status) ||
                        absl::IsInvalidArgument(status);
  return for_good ? absl::UnimplementedError(status.message()) : status;
}

}  // namespace

Executor::Executor(ExecutorOptions options, ExecutorEvents events)
    : options_(std::move(options)), events_(std::move(events)), thread_([this] { Loop(); }) {}

Executor::~Executor() { Stop(); }

void Executor::Load(transport::WorkerPlan plan, std::string weights_path, std::string kv_path,
                    PeerWeightsPath peer_weights) {
  Post([this, plan = std::move(plan), weights_path = std::move(weights_path),
        kv_path = std::move(kv_path), peer_weights = std::move(peer_weights)](ThreadPool*) {
    peer_weights_ = peer_weights;
    DoLoad(plan, weights_path, kv_path);
  });
}

void Executor::Connect(OpenExchange open) {
  Post([this, open = std::move(open)](ThreadPool*) { DoConnect(open); });
}

void Executor::Disconnect(uint64_t epoch) {
  {
    // The coordinator has ended an epoch of its own host itself; others hear of it here.
    std::lock_guard<std::mutex> lock(mutex_);
    if (ring_owner_ != nullptr && (epoch == 0 || ring_owner_->epoch() == epoch)) {
      ring_owner_->Abort();
    }
  }
  Post([this, epoch](ThreadPool*) {
    if (plane_ != nullptr && (epoch == 0 || plane_->epoch() == epoch)) LeaveExchange();
  });
}

void Executor::Post(std::function<void(ThreadPool* pool)> fn) {
  std::lock_guard<std::mutex> lock(mutex_);
  posted_.push_back([this, fn = std::move(fn)] { fn(pool_.get()); });
  has_posted_.store(true);
  posted_cv_.notify_one();
  if (ringer_ != nullptr) ringer_->Ring();
}

void Executor::Stop() {
  stop_.store(true);
  Post([](ThreadPool*) {});
  {
    // A step may wait for a peer that is gone.
    std::unique_lock<std::mutex> lock(mutex_);
    if (!ended_cv_.wait_for(lock, kStopGrace, [this] { return ended_; }) &&
        ring_owner_ != nullptr) {
      ring_owner_->Abort();
    }
  }
  if (thread_.joinable()) thread_.join();
}

ExecutorStats Executor::stats() const {
  ExecutorStats stats;
  stats.steps = steps_.load();
  stats.busy_microseconds = busy_microseconds_.load();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ring_owner_ != nullptr) {
      stats.peers_ring_bytes = ring_owner_->BytesTouchedBySending(options_.worker);
    }
  }
  std::lock_guard<std::mutex> lock(segments_mutex_);
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentCounter& counter = segments_[i];
    if (!counter.own) continue;
    stats.segments.push_back({.segment = static_cast<uint32_t>(i),
                              .steps = counter.steps.load(std::memory_order_relaxed),
                              .busy_microseconds = counter.busy.load(std::memory_order_relaxed)});
  }
  return stats;
}

void Executor::AddBusy(uint32_t segment, absl::Duration busy) {
  segments_[segment].busy.fetch_add(static_cast<uint64_t>(absl::ToInt64Microseconds(busy)),
                                    std::memory_order_relaxed);
}

void Executor::Loop() {
  // Made here, because the thread that makes a pool is its thread 0.
  pool_ = std::make_unique<ThreadPool>(options_.num_threads, options_.cpus);
  while (!stop_.load()) {
    if (plane_ == nullptr) WaitForPosted();
    if (RunPosted() || plane_ == nullptr) continue;
    const uint32_t seen = plane_->doorbell().Sequence();
    if (HasPosted()) continue;
    if (ServeOne()) continue;
    if (plane_ != nullptr) plane_->doorbell().Wait(seen, transport::kDefaultSpin, kIdleWait);
  }
  LeaveExchange();
  step_sender_.reset();
  runner_.reset();
  pool_.reset();
  std::lock_guard<std::mutex> lock(mutex_);
  ended_ = true;
  ended_cv_.notify_all();
}

bool Executor::RunPosted() {
  if (!HasPosted()) return false;
  std::function<void()> fn;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    fn = std::move(posted_.front());
    posted_.pop_front();
    has_posted_.store(!posted_.empty());
  }
  fn();
  return true;
}

void Executor::WaitForPosted() {
  std::unique_lock<std::mutex> lock(mutex_);
  posted_cv_.wait(lock, [this] { return !posted_.empty(); });
}

void Executor::DoLoad(const transport::WorkerPlan& plan, const std::string& weights_path,
                      const std::string& kv_path) {
  const absl::Time start = absl::Now();
  absl::Time last_report = start;
  LeaveExchange();
  step_sender_.reset();
  std::unique_ptr<WeightStore> previous = runner_ != nullptr ? runner_->TakeStore() : nullptr;
  runner_.reset();
  LoadOptions load;
  load.worker = options_.worker;
  load.weights_path = weights_path;
  load.kv_path = kv_path;
  load.kernels = options_.kernels;
  load.device = options_.device;
  load.in_place = options_.in_place;
  load.cache_dir = options_.weight_cache;
  load.progress = [&](uint64_t done, uint64_t total) {
    const absl::Time now = absl::Now();
    if (events_.load_progress && (done == total || now - last_report >= kProgressInterval)) {
      last_report = now;
      events_.load_progress(plan.plan_id, done, total);
    }
    return !stop_.load();
  };
  const absl::Status status = [&]() -> absl::Status {
    if (load.device != nullptr) DT_RETURN_IF_ERROR(load.device->Attach());
    DT_ASSIGN_OR_RETURN(auto store, LoadWeights(plan, load, pool_.get(), std::move(previous)));
    DT_ASSIGN_OR_RETURN(runner_,
                        ModelRunner::Create(plan, options_.worker, std::move(store),
                                            {options_.kernels, pool_.get(), options_.device}));
    return absl::OkStatus();
  }();
  if (!status.ok()) {
    if (!stop_.load()) {
      events_.failed(Annotate(status, absl::StrCat(options_.worker, ": loading the plan")), 0);
      ReportIfDeviceIsLost();
    }
    return;
  }
  plan_ = plan;
  step_sender_ =
      std::make_unique<StepSender>(runner_.get(), options_.kernels, plan.step_shape, pool_.get());
  frame_.Reserve(plan.step_shape);
  {
    std::lock_guard<std::mutex> lock(segments_mutex_);
    segments_ = std::vector<SegmentCounter>(plan.route.size());
    for (size_t i = 0; i < plan.route.size(); ++i) {
      segments_[i].own = MemberOf(plan.route[i], options_.worker) >= 0;
    }
  }
  events_.loaded({.plan_id = plan.plan_id,
                  .weight_bytes = runner_->store().weight_bytes(),
                  .seconds = absl::ToDoubleSeconds(absl::Now() - start),
                  .reattached = runner_->store().reattached,
                  .from_cache = runner_->store().from_cache});
}

absl::Status Executor::MapPeers() {
  if (runner_->streamed_workers().empty() || runner_->bound_streamed()) return absl::OkStatus();
  std::vector<std::unique_ptr<PeerWeights>> peers;
  for (const std::string& peer : runner_->streamed_workers()) {
    DT_CHECK(peer_weights_ != nullptr);
    DT_ASSIGN_OR_RETURN(auto weights,
                        PeerWeights::Map(plan_, peer, peer_weights_(peer), options_.device));
    peers.push_back(std::move(weights));
  }
  runner_->BindStreamed(std::move(peers));
  return options_.device->Wait();
}

void Executor::DoConnect(const OpenExchange& open) {
  LeaveExchange();
  uint64_t epoch = 0;
  const absl::Status status = [&]() -> absl::Status {
    if (runner_ == nullptr) return absl::FailedPreconditionError("no plan is loaded");
    DT_RETURN_IF_ERROR(ForGood(MapPeers()));
    DT_ASSIGN_OR_RETURN(std::shared_ptr<transport::Exchange> exchange, open());
    epoch = exchange->epoch();
    return EnterExchange(std::move(exchange));
  }();
  if (status.ok()) {
    events_.connected(plane_->epoch());
  } else {
    LeaveExchange();
    events_.failed(Annotate(status, absl::StrCat(options_.worker, ": connecting")), epoch);
  }
}

absl::Status Executor::EnterExchange(std::shared_ptr<transport::Exchange> exchange) {
  DT_ASSIGN_OR_RETURN(auto ringer, exchange->DoorbellOf(options_.worker));
  {
    // From now on Disconnect() ends what waits below.
    std::lock_guard<std::mutex> lock(mutex_);
    ring_owner_ = exchange;
    ringer_ = std::move(ringer);
  }
  DT_RETURN_IF_ERROR(exchange->AwaitRemote(kPeerTimeout));
  RowLinkOptions links = {.device = options_.device,
                          .kind = plan_.step_shape.gpu_links,
                          .num_slots = plan_.step_shape.link_slots,
                          .slot_bytes = runner_->max_hidden_bytes(),
                          .timeout = kPeerTimeout,
                          .aborted = [exchange] { return exchange->aborted(); }};
  auto plane = DataPlane::Open(exchange, plan_.route, options_.worker, runner_->max_gathered_rows(),
                               std::move(links));
  if (!plane.ok()) return ForGood(plane.status());
  plane_ = *std::move(plane);
  return absl::OkStatus();
}

void Executor::LeaveExchange() {
  plane_.reset();
  std::lock_guard<std::mutex> lock(mutex_);
  ringer_.reset();
  ring_owner_.reset();
}

bool Executor::ServeOne() {
  absl::Status status;
  if (plane_->exchange().aborted()) {
    status = absl::AbortedError("the epoch ended");
  } else {
    transport::TensorReceiver* receiver = plane_->NextReady();
    if (receiver == nullptr) return false;
    const absl::Time start = absl::Now();
    status = RunStep(*receiver);
    steps_.fetch_add(1);
    busy_microseconds_.fetch_add(absl::ToInt64Microseconds(absl::Now() - start));
  }
  if (status.ok()) return true;
  const uint64_t epoch = plane_->epoch();
  const absl::Status broken = plane_->exchange().failure();
  if (plane_->exchange().aborted() && broken.ok()) {
    LogDebug(absl::StrCat("epoch ", epoch, " ended"));
  } else {
    // A broken edge or frame: the coordinator learns why, then all learn that the epoch is over.
    events_.failed(
        Annotate(broken.ok() ? status : broken, absl::StrCat(options_.worker, ": epoch ", epoch)),
        epoch);
    plane_->exchange().Abort();
    ReportIfDeviceIsLost();
  }
  LeaveExchange();
  return true;
}

// What failed once fails from then on: memory and kernels are gone with the device's context.
void Executor::ReportIfDeviceIsLost() {
  if (options_.device == nullptr || !events_.device_lost) return;
  const absl::Status status = options_.device->Wait();
  if (!status.ok()) events_.device_lost(status);
}

absl::Status Executor::RunStep(transport::TensorReceiver& receiver) {
  transport::ComingPartials partials;
  DT_RETURN_IF_ERROR(transport::ReceiveStepAhead(receiver, plan_.step_shape, runner_->row_shape(),
                                                 plane_->epoch(), &frame_, runner_->room(),
                                                 kPeerTimeout, &partials));
  transport::StepHeader& header = frame_.header;
  DT_RETURN_IF_ERROR(runner_->Validate(frame_));
  for (RowReceiver* in = plane_->LinkBeside(&receiver);; in = nullptr) {
    DT_RETURN_IF_ERROR(RunSegment(in, &partials));
    DT_RETURN_IF_ERROR(partials.Receive());  // where no sum was made of them here
    // The first of those that share the segment goes on with the step.
    if (plan_.route[header.segment].worker != options_.worker) return absl::OkStatus();
    transport::TensorSender* sender = plane_->SenderAfter(header.segment);
    if (header.segment + 1 == plan_.route.size()) {
      DT_CHECK(sender != nullptr);
      return step_sender_->Send(frame_, *sender, kPeerTimeout);
    }
    const uint32_t computed = header.segment++;
    if (sender != nullptr) return SendOn(computed, *sender);
    DT_RETURN_IF_ERROR(AwaitPartials(computed));
  }
}

absl::Status Executor::SendOn(uint32_t segment, transport::TensorSender& sender) {
  const transport::StepRows rows = runner_->rows(frame_);
  if (!runner_->makes_partials()) {
    return transport::SendStep(sender, frame_, rows, kPeerTimeout);
  }
  const absl::Status sent = transport::SendStepAhead(sender, frame_, rows, kPeerTimeout);
  // Also where nobody gets them: frames that come are received to where they are written.
  const absl::Status made = AwaitPartials(segment);
  DT_RETURN_IF_ERROR(sent);
  DT_RETURN_IF_ERROR(made);
  return transport::SendPartials(sender, rows.partials, kPeerTimeout);
}

absl::Status Executor::AwaitPartials(uint32_t segment) {
  const absl::Time start = absl::Now();
  DT_RETURN_IF_ERROR(runner_->AwaitPartials());
  AddBusy(segment, absl::Now() - start);
  return absl::OkStatus();
}

absl::Status Executor::RunSegment(RowReceiver* in, transport::ComingPartials* partials) {
  const uint32_t segment = frame_.header.segment;
  for (transport::TensorSender* member : plane_->MembersOf(segment)) {
    DT_RETURN_IF_ERROR(transport::SendStep(*member, frame_, runner_->rows(frame_), kPeerTimeout));
  }
  const absl::Time start = absl::Now();
  const StepLinks links = {in, plane_->LinkAfter(runner_->LastSegment(frame_.header)),
                           kPeerTimeout};
  DT_RETURN_IF_ERROR(runner_->Run(&frame_, plane_->GatherOf(segment), links, partials));
  segments_[segment].steps.fetch_add(1, std::memory_order_relaxed);
  AddBusy(segment, absl::Now() - start);
  return absl::OkStatus();
}

}  // namespace dovetail::worker
