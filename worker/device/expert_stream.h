// ExpertStream: experts that lie in the host's memory, brought to a GPU piece by piece for one step
// at a time: while kernels multiply with one piece, the next one is on its way.
//
// A unit is what comes at once: matrices of one kind of some experts of a layer, with their biases
// and scales. Units are added in the order in which a step uses them, when layers are bound; a step
// uses each of its units once, in that order. There are two buffers, which units take in turn. What
// a unit is copied from, and the stream, outlive all steps.
//
// Used by the executor's thread.
#ifndef DOVETAIL_WORKER_DEVICE_EXPERT_STREAM_H_
#define DOVETAIL_WORKER_DEVICE_EXPERT_STREAM_H_

#include <array>
#include <cstdint>
#include <vector>

#include "worker/device/device.h"
#include "worker/layers/linear.h"

namespace dovetail::worker {

class ExpertStream {
 public:
  // Two buffers of `buffer_bytes` at `buffers`, in the memory of `device`.
  ExpertStream(Device* device, uint8_t* buffers, int64_t buffer_bytes)
      : device_(*device), buffers_(buffers), buffer_bytes_(buffer_bytes) {}
  ~ExpertStream();

  // Matrices of `count` experts, of which one unit has `per_unit` (the last one perhaps fewer),
  // from unit `first` on.
  struct Matrices {
    ExpertLinear host;  // where they are
    int32_t count = 0;
    int32_t per_unit = 0;
    int first = 0;
  };
  Matrices Add(const ExpertLinear& linear, int32_t count);

  // The experts of `matrices` from `expert` on, as many as one unit has: on the GPU, for kernels
  // that are enqueued until Release().
  ExpertLinear Use(const Matrices& matrices, int32_t expert);
  void Release(const Matrices& matrices, int32_t expert);

 private:
  static constexpr int kNumBuffers = 2;
  struct Unit {
    ExpertLinear host;  // of its first expert
    int32_t count = 0;
  };
  // Offsets of a unit's parts in its buffer.
  struct Parts {
    int64_t bias = 0, scales = 0, end = 0;
  };
  static Parts PartsOf(const ExpertLinear& linear, int64_t count);
  void Bring(int unit);

  Device& device_;
  uint8_t* const buffers_;
  const int64_t buffer_bytes_;
  std::vector<Unit> units_;
  std::array<int, kNumBuffers> holds_ = {-1, -1};  // the unit that is in a buffer, or on its way
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_EXPERT_STREAM_H_
