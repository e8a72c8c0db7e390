// ShmDoorbell: a Doorbell whose state lies in shared memory, so that other processes can ring it.
//
// No ring is lost: a waiter announces itself before it looks at the sequence for the last time, a
// ringer advances the sequence before it looks for waiters, and the kernel compares the sequence
// once more. A ring is a system call only if somebody sleeps. A process that died while it slept
// leaves a waiter counted, which costs later ringers a needless call and nothing else.
// Spinning yields the processor between looks: where two workers share one, the peer gets on at
// once (measured: a hop of 1.7 us instead of 22 us on one core).
#ifndef DOVETAIL_TRANSPORT_SHM_DOORBELL_H_
#define DOVETAIL_TRANSPORT_SHM_DOORBELL_H_

#include <atomic>
#include <cstdint>

#include "transport/tensor_channel.h"

namespace dovetail::transport {

// Zero is a valid initial state. On its own cache line: ringers write it, the waiter spins on it.
struct alignas(64) DoorbellState {
  std::atomic<uint32_t> sequence{0};
  std::atomic<uint32_t> waiters{0};
};
static_assert(sizeof(DoorbellState) == 64);

// Borrows the state. Thread-safe; several threads may wait, all of them are woken.
class ShmDoorbell final : public Doorbell {
 public:
  explicit ShmDoorbell(DoorbellState* state) : state_(state) {}
  uint32_t Sequence() const override { return state_->sequence.load(std::memory_order_acquire); }
  void Wait(uint32_t seen, absl::Duration spin, absl::Duration timeout) override;
  void Ring() override;

 private:
  DoorbellState* state_;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_SHM_DOORBELL_H_
