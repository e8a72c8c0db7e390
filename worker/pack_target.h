// PackTarget: where packed weights go: straight into a CPU worker's memory, or by way of two
// staging buffers into a GPU's, of which one is filled while the other is on its way.
//
// Used by the executor's thread while it loads.
#ifndef DOVETAIL_WORKER_PACK_TARGET_H_
#define DOVETAIL_WORKER_PACK_TARGET_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/memory.h"

namespace dovetail::worker {

class PackTarget {
 public:
  // `memory` and `device` outlive it. Without a device the memory is the host's.
  static absl::StatusOr<std::unique_ptr<PackTarget>> Create(Memory* memory, Device* device);

  // Where bytes [offset, offset + bytes) of the memory are to be written. `bytes`: at most
  // max_bytes(). The next call, or Finish(), takes them over.
  absl::StatusOr<uint8_t*> Next(int64_t offset, int64_t bytes);
  int64_t max_bytes() const;
  // Everything is in the memory.
  absl::Status Finish();

 private:
  PackTarget(Memory* memory, Device* device) : memory_(*memory), device_(device) {}
  void Send();

  Memory& memory_;
  Device* device_;
  std::array<DeviceBuffer, 2> staging_;
  int current_ = 0;
  int64_t offset_ = 0, bytes_ = 0;  // of what is being written
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_PACK_TARGET_H_
