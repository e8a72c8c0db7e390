// RowSender and RowReceiver: rows of one edge of the route, from one GPU's memory into another's,
// in order, without the host touching them.
//
// The host's part of a step goes by the ring of the same edge (transport/tensor_channel.h), which
// says how many bytes are to come; links carry bytes and know no frames.
//
// Each end belongs to the thread of its device, and goes before the device does. Nothing is
// allocated by a call that succeeds. Waits have a timeout (base/patience.h) and end with
// kAborted when the epoch has ended, with kUnavailable when the other end is gone; messages name
// the edge. Implementations: nccl_links.h, ipc_link.h; which one an edge has: worker/row_links.h.
#ifndef DOVETAIL_WORKER_DEVICE_ROW_LINK_H_
#define DOVETAIL_WORKER_DEVICE_ROW_LINK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace dovetail::worker {

class RowSender {
 public:
  virtual ~RowSender() = default;
  // Where the rows of the next message, at most `bytes`, are to be put, on the sender's device;
  // waits until that place is free again. kDeadlineExceeded leaves the link as it was.
  virtual absl::StatusOr<uint8_t*> Next(int64_t bytes, absl::Duration timeout) = 0;
  // `bytes` of what was put there, by work that is done (the device's stream was waited for), go on
  // their way; does not wait for the receiver. Nobody writes to that place afterwards; a Next()
  // that no Send() follows gives it again. A failure leaves the link unusable.
  virtual absl::Status Send(int64_t bytes) = 0;
};

class RowReceiver {
 public:
  virtual ~RowReceiver() = default;
  // Brings the next message's rows, of as many bytes as were sent, to `to`: memory of the
  // receiver's device (of NCCL's receivers, from AllocateLink()). What is enqueued on the device's
  // own stream afterwards sees them. A failure leaves the link unusable, and `to` in use until it
  // is gone.
  virtual absl::Status Receive(uint8_t* to, int64_t bytes, absl::Duration timeout) = 0;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_ROW_LINK_H_
