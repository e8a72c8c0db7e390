// IpcSender and IpcReceiver: rows of one edge by memory of the sender's GPU that the receiver's
// process has mapped, and copies from.
//
// The sender puts rows in slots, in turn. Nobody says when a slot is free again: a lane has one
// step on its way, which the receiver has taken out of its slot before it passes the step on. So
// there are as many slots as lanes, and Next() never waits. Threads: row_link.h.
#ifndef DOVETAIL_WORKER_DEVICE_IPC_LINK_H_
#define DOVETAIL_WORKER_DEVICE_IPC_LINK_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/device/device.h"
#include "worker/device/row_link.h"

namespace dovetail::worker {

// What the receiver must know, once.
struct IpcOffer {
  LinkMemory memory;
  int32_t num_slots = 0;
  int32_t reserved = 0;
  int64_t slot_bytes = 0;
};

class IpcSender : public RowSender {
 public:
  static absl::StatusOr<std::unique_ptr<IpcSender>> Create(Device* device, int num_slots,
                                                           int64_t slot_bytes, IpcOffer* offer);
  absl::StatusOr<uint8_t*> Next(int64_t bytes, absl::Duration timeout) override;
  absl::Status Send(int64_t /*bytes*/) override {
    ++next_;
    return absl::OkStatus();
  }

 private:
  IpcSender() = default;
  DeviceBuffer memory_;
  int num_slots_ = 0;
  int64_t slot_bytes_ = 0;
  int64_t next_ = 0;
};

class IpcReceiver : public RowReceiver {
 public:
  // kUnimplemented: this GPU, or this process, cannot map what was offered; why.
  // kInvalidArgument: an offer that nobody makes.
  static absl::StatusOr<std::unique_ptr<IpcReceiver>> Create(Device* device, std::string edge,
                                                             const IpcOffer& offer);
  ~IpcReceiver() override;
  absl::Status Receive(uint8_t* to, int64_t bytes, absl::Duration timeout) override;

 private:
  IpcReceiver(Device* device, std::string edge) : device_(*device), edge_(std::move(edge)) {}
  Device& device_;
  const std::string edge_;
  IpcOffer offer_;
  const uint8_t* memory_ = nullptr;
  int64_t next_ = 0;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_IPC_LINK_H_
