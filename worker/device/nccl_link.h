// NcclSender and NcclReceiver: rows of one edge by NCCL (nccl_comm.h, docs/gpu_links.md).
//
// How the two ends come up: the sender's side makes an id, which the wiring carries to the
// receiver's; each side begins all its links, then joins them one after another: no Join() waits
// for more than the other side's Begin(), so that any circle of edges comes up. The first Next()
// and the first Receive() wait for the other side's Join().
//
// All memory is taken by Begin(). Threads and waits: row_link.h.
#ifndef DOVETAIL_WORKER_DEVICE_NCCL_LINK_H_
#define DOVETAIL_WORKER_DEVICE_NCCL_LINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/device/device.h"
#include "worker/device/nccl_comm.h"
#include "worker/device/row_link.h"

namespace dovetail::worker {

// Rows lie in one of a number of slots until the receiver has them; slots are used in turn.
class NcclSender : public RowSender {
 public:
  // `num_slots`: as many as there are messages on their way at most. `slot_bytes`: of the longest.
  static absl::StatusOr<std::unique_ptr<NcclSender>> Begin(Device* device, LinkEdge edge,
                                                           const NcclId& id, int num_slots,
                                                           int64_t slot_bytes);
  ~NcclSender() override;

  absl::Status Join(absl::Duration timeout);
  absl::StatusOr<uint8_t*> Next(int64_t bytes, absl::Duration timeout) override;
  absl::Status Send(int64_t bytes) override;

 private:
  // A stream of its own, which tells when the slot is free again. NCCL keeps the order of what is
  // posted to one communicator, whatever the streams.
  struct Slot {
    DeviceBuffer memory;
    std::unique_ptr<DeviceStream> stream;
  };
  NcclSender() = default;
  absl::StatusOr<bool> AllDone();

  std::vector<Slot> slots_;
  size_t next_ = 0;
  int64_t taken_bytes_ = 0;  // what Next() gave out; 0: nothing
  bool usable_ = false;
  std::unique_ptr<NcclComm> comm_;  // goes first: it may still use the slots
};

class NcclReceiver : public RowReceiver {
 public:
  static absl::StatusOr<std::unique_ptr<NcclReceiver>> Begin(Device* device, LinkEdge edge,
                                                             const NcclId& id);
  ~NcclReceiver() override;

  absl::Status Join(absl::Duration timeout);
  absl::Status Receive(uint8_t* to, int64_t bytes, absl::Duration timeout) override;

 private:
  NcclReceiver() = default;
  // Whether what was posted has arrived.
  absl::StatusOr<bool> Arrived();

  DeviceBuffer first_byte_;
  std::unique_ptr<DeviceStream> stream_;
  bool usable_ = false;
  std::unique_ptr<NcclComm> comm_;  // goes first: it may still use the rest
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_NCCL_LINK_H_
