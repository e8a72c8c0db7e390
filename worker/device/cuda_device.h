// OpenCudaDevice: one of this machine's NVIDIA GPUs, by the CUDA runtime, which opens the driver's
// library only here: a machine without one can run the same program.
#ifndef DOVETAIL_WORKER_DEVICE_CUDA_DEVICE_H_
#define DOVETAIL_WORKER_DEVICE_CUDA_DEVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace dovetail::worker {

// `ordinal`: as CUDA counts them, with CUDA_VISIBLE_DEVICES. Unimplemented: this build has no CUDA
// kernels. FailedPrecondition: no driver, or one that is too old. NotFound: so many GPUs are not
// there.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int ordinal);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_CUDA_DEVICE_H_
