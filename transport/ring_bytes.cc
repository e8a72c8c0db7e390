#include "transport/ring_bytes.h"

#include <algorithm>

#include "base/check.h"

namespace dovetail::transport {

// Both ends of these rings are in one process: what one of them publishes is believed.
absl::Span<const uint8_t> RingSource::Bytes() const {
  const uint64_t tail = ring_.control->tail.load(std::memory_order_acquire);
  const uint64_t at = head_ & (ring_.capacity - 1);
  return {ring_.bytes + at, std::min(tail - head_, ring_.capacity - at)};
}

void RingSource::Take(uint64_t count) {
  head_ += count;
  ring_.control->head.store(head_, std::memory_order_seq_cst);
  const uint64_t wanted = ring_.control->room_wanted.load(std::memory_order_seq_cst);
  if (wanted == 0) return;
  const uint64_t tail = ring_.control->tail.load(std::memory_order_acquire);
  if (ring_.capacity - (tail - head_) >= wanted) ShmDoorbell(ring_.sender_bell).Ring();
}

void RingSource::Wait(absl::Duration timeout) {
  const uint32_t seen = own_bell_.Sequence();
  if (Bytes().empty()) own_bell_.Wait(seen, kDefaultSpin, timeout);
}

absl::Span<uint8_t> RingSink::Room() const {
  const uint64_t head = ring_.control->head.load(std::memory_order_acquire);
  const uint64_t at = tail_ & (ring_.capacity - 1);
  return {ring_.bytes + at, std::min(ring_.capacity - (tail_ - head), ring_.capacity - at)};
}

void RingSink::Put(uint64_t count) {
  DT_CHECK(count <= Room().size());
  tail_ += count;
  ring_.control->tail.store(tail_, std::memory_order_release);
  ShmDoorbell(ring_.receiver_bell).Ring();
}

void RingSink::Wait(absl::Duration timeout) {
  const uint32_t seen = own_bell_.Sequence();
  // Announced before the last look: the receiver frees first and looks for the announcement after.
  ring_.control->room_wanted.store(ring_.capacity / 2, std::memory_order_seq_cst);
  const uint64_t head = ring_.control->head.load(std::memory_order_seq_cst);
  if (tail_ - head == ring_.capacity) own_bell_.Wait(seen, kDefaultSpin, timeout);
  ring_.control->room_wanted.store(0, std::memory_order_relaxed);
}

}  // namespace dovetail::transport
