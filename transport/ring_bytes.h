// RingSource and RingSink: a ring's bytes for whoever carries them on, without looking at the
// messages in them: one takes what was sent into a ring, the other puts it into the ring from which
// it is received (tcp_edge.h).
//
// They are the receiver and the sender of their ring (shm_ring.h), of which the other end is an
// ordinary one. Each belongs to one thread, and allocates nothing. Never waits but in Wait().
#ifndef DOVETAIL_TRANSPORT_RING_BYTES_H_
#define DOVETAIL_TRANSPORT_RING_BYTES_H_

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "transport/shm_ring.h"

namespace dovetail::transport {

class RingSource {
 public:
  explicit RingSource(const RingView& ring) : ring_(ring), own_bell_(ring.receiver_bell) {}
  // What was sent and not taken, up to the end of the ring's memory.
  absl::Span<const uint8_t> Bytes() const;
  // The first `count` of them are somewhere else.
  void Take(uint64_t count);
  // Returns when there are bytes, when the bell was rung, or after `timeout`.
  void Wait(absl::Duration timeout);

 private:
  RingView ring_;
  ShmDoorbell own_bell_;
  uint64_t head_ = 0;
};

class RingSink {
 public:
  explicit RingSink(const RingView& ring) : ring_(ring), own_bell_(ring.sender_bell) {}
  // What is free, up to the end of the ring's memory.
  absl::Span<uint8_t> Room() const;
  // Its first `count` bytes are written.
  void Put(uint64_t count);
  // Returns when there is room, when the bell was rung, or after `timeout`.
  void Wait(absl::Duration timeout);

 private:
  RingView ring_;
  ShmDoorbell own_bell_;
  uint64_t tail_ = 0;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_RING_BYTES_H_
