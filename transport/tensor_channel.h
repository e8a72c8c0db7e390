// TensorSender and TensorReceiver: one edge of the route, carrying messages in order, one way.
//
// A message is any number of bytes (more than the ring holds is fine: the writer waits for room),
// sent from pieces and read in pieces, so that rows land in the workspace without a copy between.
// Both ends are fenced by their epoch: after Abort() of the exchange every call returns kAborted,
// also calls that wait. Implementation: shared-memory rings (shm_ring.h), between processes or, for
// tests, between threads (Exchange::CreateInProcess).
//
// Flow control can stand still in a circle: two processes that each wait for room in a ring to the
// other. A route that visits a worker twice therefore needs rings that hold all steps in flight.
//
// Each end belongs to one thread. Sending and receiving allocate nothing. Timeouts: base/patience.h
#ifndef DOVETAIL_TRANSPORT_TENSOR_CHANNEL_H_
#define DOVETAIL_TRANSPORT_TENSOR_CHANNEL_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace dovetail::transport {

// How long waits of a channel look without sleeping: a hop while stages are busy costs
// microseconds, an idle process costs nothing.
inline constexpr absl::Duration kDefaultSpin = absl::Microseconds(20);

struct ConstBytes {
  const void* data;
  size_t size;
};

class TensorSender {
 public:
  virtual ~TensorSender() = default;
  // Sends one message made of `pieces`. kDeadlineExceeded: the peer did not make room in time (the
  // channel is unusable afterwards); kAborted: the epoch ended.
  absl::Status Send(absl::Span<const ConstBytes> pieces, absl::Duration timeout) {
    return SendBegin(pieces, 0, timeout);
  }
  // The same of a message of which `rest_bytes` more are not there yet: the receiver can read what
  // is. SendRest() with so many bytes is the next call.
  virtual absl::Status SendBegin(absl::Span<const ConstBytes> pieces, size_t rest_bytes,
                                 absl::Duration timeout) = 0;
  virtual absl::Status SendRest(absl::Span<const ConstBytes> pieces, absl::Duration timeout) = 0;
  // What the receiver has answered, once in an epoch; waits for it.
  virtual absl::StatusOr<uint32_t> Answer(absl::Duration timeout) = 0;
};

class TensorReceiver {
 public:
  virtual ~TensorReceiver() = default;
  // True when Begin() would not wait: a message has begun to arrive, or the epoch ended. Never
  // waits.
  virtual bool Ready() const = 0;
  // Begins the next message and returns its size; requires Ready() or waits up to `timeout`
  // (kDeadlineExceeded leaves the channel as it was).
  virtual absl::StatusOr<size_t> Begin(absl::Duration timeout) = 0;
  // Reads the next `size` bytes of the begun message. kInvalidArgument: more than the message has.
  // kDeadlineExceeded: the sender stopped in the middle (the channel is unusable afterwards).
  virtual absl::Status Read(void* data, size_t size, absl::Duration timeout) = 0;
  // Skips what was not read and frees its room.
  virtual absl::Status End(absl::Duration timeout) = 0;
  // `answer`, not 0: for the sender. Once in an epoch.
  virtual void SetAnswer(uint32_t answer) = 0;
};

// A process's wake-up: senders ring it, one thread waits on it. Rings, queues and control threads
// of a process share one, so its executor sleeps in exactly one place.
class Doorbell {
 public:
  virtual ~Doorbell() = default;
  // The number of rings so far; read it, look for work, then Wait(seen).
  virtual uint32_t Sequence() const = 0;
  // Returns when Sequence() differs from `seen`, or after `timeout`. Spins for `spin` first.
  virtual void Wait(uint32_t seen, absl::Duration spin, absl::Duration timeout) = 0;
  virtual void Ring() = 0;
};

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_TENSOR_CHANNEL_H_
