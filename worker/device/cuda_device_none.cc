// OpenCudaDevice of a build without nvcc.
#include "worker/device/cuda_device.h"

namespace dovetail::worker {

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int /*ordinal*/) {
  return absl::UnimplementedError(
      "this build has no GPU kernels: build it where nvcc is (docs/kernels-cuda.md)");
}

}  // namespace dovetail::worker
