// NcclSender and NcclReceiver: rows of one edge by NCCL. Made, joined and ended by the NcclLinks of
// their device (nccl_links.h). Threads and waits: row_link.h.
#ifndef DOVETAIL_WORKER_DEVICE_NCCL_LINK_H_
#define DOVETAIL_WORKER_DEVICE_NCCL_LINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/device/device.h"
#include "worker/device/nccl_comm.h"
#include "worker/device/row_link.h"

namespace dovetail::worker {

// What both have for their owner.
class NcclEnd {
 public:
  virtual ~NcclEnd() = default;
  NcclComm& comm() { return *comm_; }
  // Posts the operation of a byte with which the two ends connect; requires that they have joined.
  virtual absl::Status Connect() = 0;
  // Whether nothing is on its way, so that the link can end in order.
  virtual absl::StatusOr<bool> Idle() = 0;

 protected:
  absl::Status CheckUsable() const;

  bool usable_ = false;  // has connected, and did not fail
  std::unique_ptr<NcclComm> comm_;
};

// Rows lie in one of a number of slots until the receiver has them; slots are used in turn.
class NcclSender : public NcclEnd, public RowSender {
 public:
  // `num_slots`: as many as there are messages on their way at most. `slot_bytes`: of the longest.
  static absl::StatusOr<std::unique_ptr<NcclSender>> Begin(Device* device, LinkEdge edge,
                                                           const NcclId& id, int num_slots,
                                                           int64_t slot_bytes);
  ~NcclSender() override { comm_.reset(); }  // which may still use the slots

  absl::Status Connect() override;
  absl::StatusOr<bool> Idle() override;
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

  std::vector<Slot> slots_;
  size_t next_ = 0;
  int64_t taken_bytes_ = 0;  // what Next() gave out; 0: nothing
};

class NcclReceiver : public NcclEnd, public RowReceiver {
 public:
  static absl::StatusOr<std::unique_ptr<NcclReceiver>> Begin(Device* device, LinkEdge edge,
                                                             const NcclId& id);
  ~NcclReceiver() override { comm_.reset(); }  // which may still use the rest

  absl::Status Connect() override;
  absl::StatusOr<bool> Idle() override;
  absl::Status Receive(uint8_t* to, int64_t bytes, absl::Duration timeout) override;

 private:
  NcclReceiver() = default;

  DeviceBuffer first_byte_;
  std::unique_ptr<DeviceStream> stream_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_NCCL_LINK_H_
