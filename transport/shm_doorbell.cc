#include "transport/shm_doorbell.h"

#include <sched.h>

#include <algorithm>

#include "base/cpu_pause.h"
#include "base/deadline.h"
#include "base/futex.h"

namespace dovetail::transport {
namespace {

// Looks for a change of the sequence for at most `spin`; reading the clock each time would be most
// of the work.
bool SpinForChange(const std::atomic<uint32_t>& sequence, uint32_t seen, absl::Duration spin) {
  constexpr int kLooksPerClockRead = 16;
  if (spin <= absl::ZeroDuration()) return sequence.load(std::memory_order_acquire) != seen;
  const Deadline end(spin);
  do {
    for (int i = 0; i < kLooksPerClockRead; ++i) {
      if (sequence.load(std::memory_order_acquire) != seen) return true;
      CpuPause();
    }
    // The other end may be waiting for this very processor.
    sched_yield();
  } while (!end.Passed());
  return false;
}

}  // namespace

void ShmDoorbell::Wait(uint32_t seen, absl::Duration spin, absl::Duration timeout) {
  if (Sequence() != seen) return;
  const Deadline deadline(timeout);
  if (SpinForChange(state_->sequence, seen, std::min(spin, timeout))) return;
  state_->waiters.fetch_add(1, std::memory_order_seq_cst);
  while (state_->sequence.load(std::memory_order_seq_cst) == seen) {
    const absl::Duration left = deadline.Remaining();
    if (left <= absl::ZeroDuration()) break;
    FutexWait(state_->sequence, seen, left);
  }
  state_->waiters.fetch_sub(1, std::memory_order_seq_cst);
}

void ShmDoorbell::Ring() {
  state_->sequence.fetch_add(1, std::memory_order_seq_cst);
  if (state_->waiters.load(std::memory_order_seq_cst) != 0) FutexWakeAll(state_->sequence);
}

}  // namespace dovetail::transport
