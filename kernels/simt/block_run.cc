#include "kernels/simt/block_run.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::simt {
namespace {

// Kernels have small frames; sanitizers make them several times as large.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 512 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr uint32_t kMaxBlockThreads = 1024;

// Thrown through a kernel whose launch has ended.
struct Abandoned {};

size_t IndexOf(int warp, int lane) {
  return static_cast<size_t>(warp) * kWarpLanes + static_cast<size_t>(lane);
}

thread_local BlockRun* current = nullptr;
thread_local uint64_t blocks_run = 0;

}  // namespace

BlockRun::BlockRun(const char* name, Dim grid, uint32_t threads, const Stream& stream)
    : name_(name), seed_(stream.seed), random_(stream.seed) {
  DT_CHECK(threads >= 1 && threads <= kMaxBlockThreads);
  threads_.resize(threads);
  for (uint32_t i = 0; i < threads; ++i) {
    stacks_.emplace_back(kStackBytes);
    threads_[i].context = {{i, 0}, {}, {threads, 1}, grid, stream.capability, this};
  }
  warps_.resize((threads + kWarpLanes - 1) / kWarpLanes);
  warp_order_.resize(warps_.size());
  lane_order_.resize(kWarpLanes);
  std::iota(warp_order_.begin(), warp_order_.end(), 0);
  std::iota(lane_order_.begin(), lane_order_.end(), 0);
}

absl::Status BlockRun::Run(Dim block, Kernel kernel) {
  BlockRun* const outer = current;
  current = this;
  Start(block, kernel);
  RunToEnd();
  current = outer;
  return status_;
}

void BlockRun::Start(Dim block, Kernel kernel) {
  kernel_ = kernel;
  launch_block_ = ++blocks_run;
  block_epoch_ = 0;
  for (size_t i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    thread.context.block = block;
    thread.state = State::kReady;
    thread.copies.assign(1, {});
    thread.fiber = std::make_unique<Fiber>(stacks_[i], RunThread, &thread);
  }
}

void BlockRun::RunThread(void* thread) {
  Thread* self = static_cast<Thread*>(thread);
  BlockRun* run = self->context.run;
  try {
    run->kernel_.fn(run->kernel_.arg);
  } catch (const Abandoned&) {
  }
  self->state = State::kEnded;
}

void BlockRun::RunToEnd() {
  for (;;) {
    bool progress = false;
    Shuffle(&warp_order_);
    for (int warp : warp_order_) {
      progress |= RunWarp(warp);
      if (abandoned_) return Abandon();
    }
    const bool all_ended = std::all_of(threads_.begin(), threads_.end(),
                                       [](const Thread& t) { return t.state == State::kEnded; });
    if (all_ended) return;
    if (ReleaseBlock() || progress) continue;
    abandoned_ = true;
    status_ = absl::FailedPreconditionError(
        absl::StrCat(name_, ": threads wait for what does not come: ", WhoWaits()));
    return Abandon();
  }
}

bool BlockRun::RunWarp(int warp) {
  bool any = false;
  do {
    any |= RunReadyLanes(warp);
  } while (!abandoned_ && ReleaseWarp(warp));
  return any;
}

bool BlockRun::RunReadyLanes(int warp) {
  bool any = false;
  Shuffle(&lane_order_);
  for (int lane : lane_order_) {
    const size_t index = IndexOf(warp, lane);
    if (index >= threads_.size() || threads_[index].state != State::kReady) continue;
    running_ = static_cast<int>(index);
    threads_[index].fiber->Resume();
    any = true;
    if (abandoned_) break;
  }
  return any;
}

bool BlockRun::MaskHasCome(int warp, const Thread& first) const {
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((first.mask >> lane & 1) == 0) continue;
    const size_t index = IndexOf(warp, lane);
    if (index >= threads_.size()) return false;
    const Thread& thread = threads_[index];
    if (thread.state != State::kInWarp || thread.fn != first.fn || thread.mask != first.mask) {
      return false;
    }
  }
  return true;
}

void BlockRun::Release(int warp, const Thread& first) {
  const uint32_t mask = first.mask;
  if (first.fn != nullptr) {
    try {
      first.fn(warps_[warp].in, mask, &warps_[warp].out);
    } catch (const Abandoned&) {
      return;
    }
  } else {
    ++warps_[warp].epoch;
  }
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((mask >> lane & 1) != 0) threads_[warp * kWarpLanes + lane].state = State::kReady;
  }
}

bool BlockRun::ReleaseWarp(int warp) {
  bool any = false;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const size_t index = IndexOf(warp, lane);
    if (index >= threads_.size()) break;
    if (threads_[index].state != State::kInWarp || !MaskHasCome(warp, threads_[index])) continue;
    running_ = static_cast<int>(index);
    Release(warp, threads_[index]);
    if (abandoned_) return false;
    any = true;
  }
  return any;
}

bool BlockRun::ReleaseBlock() {
  for (const Thread& thread : threads_) {
    if (thread.state != State::kAtBarrier) return false;
  }
  ++block_epoch_;
  for (Thread& thread : threads_) thread.state = State::kReady;
  return true;
}

void BlockRun::Abandon() {
  for (size_t i = 0; i < threads_.size(); ++i) {
    running_ = static_cast<int>(i);
    while (!threads_[i].fiber->ended()) threads_[i].fiber->Resume();
  }
}

void BlockRun::Yield() {
  threads_[running_].fiber->Yield();
  if (abandoned_) throw Abandoned();
}

void BlockRun::Fail(const std::string& what) {
  const Dim block = context().block;
  if (!abandoned_) {
    status_ = absl::FailedPreconditionError(
        absl::StrCat(name_, ": block ", block.x, ",", block.y, " thread ", running_, ": ", what));
  }
  abandoned_ = true;
  throw Abandoned();
}

void BlockRun::SyncBlock() {
  if (abandoned_) throw Abandoned();
  threads_[running_].state = State::kAtBarrier;
  Yield();
}

void BlockRun::WarpExchange(const char* name, WarpFn fn, uint32_t mask, const void* in,
                            size_t in_bytes, void* out, size_t out_bytes) {
  if (abandoned_) throw Abandoned();
  Thread& self = threads_[running_];
  const int warp = running_ / kWarpLanes;
  const int lane = running_ % kWarpLanes;
  if ((mask >> lane & 1) == 0) Fail(absl::StrCat(name, ": the mask lacks the lane itself"));
  if (in_bytes > 0) std::memcpy(warps_[warp].in.lane[lane], in, in_bytes);
  self.state = State::kInWarp;
  self.waits_for = name;
  self.fn = fn;
  self.mask = mask;
  Yield();
  if (out_bytes > 0) std::memcpy(out, warps_[warp].out.lane[lane], out_bytes);
}

void BlockRun::SyncWarp(uint32_t mask) {
  WarpExchange("SyncWarp", nullptr, mask, nullptr, 0, nullptr, 0);
}

void BlockRun::AddCopy(const Copy& copy) { threads_[running_].copies.back().push_back(copy); }

void BlockRun::CommitCopies() { threads_[running_].copies.emplace_back(); }

void BlockRun::WaitCopies(int newest) {
  std::vector<std::vector<Copy>>& groups = threads_[running_].copies;
  while (groups.size() > static_cast<size_t>(newest) + 1) {
    for (const Copy& copy : groups.front()) {
      copy.end(copy.array, copy.index, copy.from, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}

Moment BlockRun::Now() const {
  const int warp = running_ / kWarpLanes;
  return {launch_block_, block_epoch_, warps_[warp].epoch, static_cast<int16_t>(running_),
          static_cast<int16_t>(warp)};
}

std::string BlockRun::WhoWaits() const {
  int ended = 0, at_barrier = 0, in_warp = 0;
  const Thread* example = nullptr;
  for (const Thread& thread : threads_) {
    ended += thread.state == State::kEnded ? 1 : 0;
    at_barrier += thread.state == State::kAtBarrier ? 1 : 0;
    if (thread.state != State::kInWarp) continue;
    ++in_warp;
    if (example == nullptr) example = &thread;
  }
  std::string text = absl::StrCat("of ", threads_.size(), " threads ", at_barrier,
                                  " are at SyncBlock and ", ended, " have ended");
  if (example != nullptr) {
    absl::StrAppend(&text, "; ", in_warp, " wait for lanes of their warp, thread ",
                    example->context.thread.x, " in ", example->waits_for, " with mask ",
                    absl::Hex(example->mask, absl::kZeroPad8));
  }
  return text;
}

void BlockRun::Shuffle(std::vector<int>* order) {
  if (seed_ != 0) std::shuffle(order->begin(), order->end(), random_);
}

namespace {

// Has a stream's memory open while a launch runs.
class Access {
 public:
  explicit Access(const Stream& stream) : stream_(stream) { Set(true); }
  ~Access() { Set(false); }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

 private:
  void Set(bool open) const {
    if (stream_.access != nullptr) stream_.access(stream_.access_arg, open);
  }
  const Stream& stream_;
};

}  // namespace

void Launch(Stream* stream, const char* name, Dim grid, uint32_t block, void (*kernel)(const void*),
            const void* arg) {
  if (!stream->status.ok() || grid.x == 0 || grid.y == 0) return;
  ++stream->launches;
  if (stream->new_seeds) ++stream->seed;
  const Access access(*stream);
  BlockRun run(name, grid, block, *stream);
  std::vector<int> order(static_cast<size_t>(grid.x) * grid.y);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(stream->seed);
  if (stream->seed != 0) std::shuffle(order.begin(), order.end(), random);
  for (int index : order) {
    const uint32_t at = static_cast<uint32_t>(index);
    stream->status = run.Run({at % grid.x, at / grid.x}, {kernel, arg});
    if (!stream->status.ok()) return;
  }
}

const ThreadContext& ThisThread() { return current->context(); }
void Fail(const std::string& what) { current->Fail(what); }
void SyncBlock() { current->SyncBlock(); }
void WarpExchange(const char* name, WarpFn fn, uint32_t mask, const void* in, size_t in_bytes,
                  void* out, size_t out_bytes) {
  current->WarpExchange(name, fn, mask, in, in_bytes, out, out_bytes);
}
void SyncWarp(uint32_t mask) { current->SyncWarp(mask); }
void AddCopy(const Copy& copy) { current->AddCopy(copy); }
void CommitCopies() { current->CommitCopies(); }
void WaitCopies(int newest) { current->WaitCopies(newest); }
Moment Now() { return current->Now(); }

}  // namespace dovetail::simt
