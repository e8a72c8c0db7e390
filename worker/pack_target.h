// PackTarget: where weights go while they are loaded: packed, straight into a CPU worker's memory;
// or as the file has them by way of two staging buffers to a GPU, which packs them. One of the
// buffers is filled while the other is on its way.
//
// Used by the executor's thread while it loads. What it holds of a GPU's memory is freed with it,
// before the KV cache and the workspace are allocated in its place (model::kLoadDeviceBytes).
#ifndef DOVETAIL_WORKER_PACK_TARGET_H_
#define DOVETAIL_WORKER_PACK_TARGET_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/weight_type.h"
#include "worker/device/device.h"
#include "worker/memory.h"

namespace dovetail::worker {

class PackTarget {
 public:
  // `memory` and `device` outlive it. Without a device the memory is the host's.
  static absl::StatusOr<std::unique_ptr<PackTarget>> Create(Memory* memory, Device* device);

  // Whether rows are packed behind NextRows(), and not by the caller.
  bool packs_rows() const { return device_ != nullptr; }
  // Where bytes [offset, offset + bytes) of the memory are to be written. `bytes`: at most
  // max_bytes(). The next call of the two, or Finish(), takes them over.
  absl::StatusOr<uint8_t*> Next(int64_t offset, int64_t bytes);
  // Where `rows` stored rows of a quantised matrix, of k elements each, are to be written that
  // become whole panels from `offset` on. At most max_bytes() as they are stored.
  absl::StatusOr<uint8_t*> NextRows(WeightType type, int64_t rows, int64_t k, int64_t offset);
  int64_t max_bytes() const;
  // Everything is in the memory.
  absl::Status Finish();

 private:
  struct Piece {
    int64_t offset = 0, bytes = 0;  // bytes as they are staged; 0: none
    bool is_rows = false;
    WeightType type = WeightType::kF32;
    int64_t rows = 0, k = 0;
  };
  PackTarget(Memory* memory, Device* device) : memory_(*memory), device_(device) {}
  absl::StatusOr<uint8_t*> Stage(const Piece& piece);
  void Send();

  Memory& memory_;
  Device* device_;
  DeviceBuffer rows_;  // as the file has them, on the device
  std::array<DeviceBuffer, 2> staging_;
  int current_ = 0;
  Piece piece_;  // that is being written
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_PACK_TARGET_H_
