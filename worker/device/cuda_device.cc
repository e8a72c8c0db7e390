#include "worker/device/cuda_device.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_table.h"

namespace dovetail::worker {
namespace {

absl::Status ToStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

std::string CudaVersion(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// Why there is no GPU to be used, in words that say what to do.
absl::Status NoDevice(cudaError_t error) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    return absl::FailedPreconditionError(
        "there is no NVIDIA driver on this machine (libcuda.so.1 was not found); in a container, "
        "give it the GPUs");
  }
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver is too old: it is for CUDA ", CudaVersion(driver),
                     ", this build needs ", CudaVersion(runtime)));
  }
  if (error == cudaErrorNoDevice) {
    return absl::NotFoundError("the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES?)");
  }
  return ToStatus(error, "looking for GPUs");
}

class CudaDevice : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {}
  ~CudaDevice() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::StatusOr<DeviceProperties> Properties() override;
  absl::StatusOr<double> MeasureBandwidth() override;
  absl::Status Attach() override;
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateLink(int64_t bytes) override { return Allocate(bytes); }
  absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream() override;
  const kernels::DeviceTable& kernels() const override { return kernels::CudaTable(); }
  void* stream() override { return stream_; }
  void Upload(void* to, const void* from, int64_t bytes) override {
    CopyBytes(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void Download(void* to, const void* from, int64_t bytes) override {
    CopyBytes(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  void Copy(void* to, const void* from, int64_t bytes) override {
    CopyBytes(to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  absl::Status Wait() override;

  // What launches so far have left behind, which other calls would take for their own.
  void NoteLaunches() { Note(cudaGetLastError()); }

 private:
  void Free(uint8_t* data, int64_t bytes, bool on_host) override;
  void CopyBytes(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind);
  void Note(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }

  const int ordinal_;
  cudaStream_t stream_ = nullptr;
  cudaError_t error_ = cudaSuccess;  // the first one
};

class CudaStream : public DeviceStream {
 public:
  CudaStream(CudaDevice* device, cudaStream_t stream) : device_(*device), stream_(stream) {}
  ~CudaStream() override { cudaStreamDestroy(stream_); }

  void* handle() override { return stream_; }
  absl::StatusOr<bool> Done() override {
    device_.NoteLaunches();
    const cudaError_t error = cudaStreamQuery(stream_);
    if (error == cudaSuccess) return true;
    cudaGetLastError();  // "not ready" is nothing that later calls should tell of
    if (error == cudaErrorNotReady) return false;
    return ToStatus(error, "the GPU failed");
  }

 private:
  CudaDevice& device_;
  const cudaStream_t stream_;
};

absl::StatusOr<DeviceProperties> CudaDevice::Properties() {
  DT_RETURN_IF_ERROR(ToStatus(cudaSetDevice(ordinal_), "the GPU cannot be used"));
  cudaDeviceProp found;
  DT_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&found, ordinal_), "the GPU does not say what it is"));
  size_t free = 0, total = 0;
  DT_RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free, &total), "the GPU does not tell its memory"));
  int driver = 0;
  cudaDriverGetVersion(&driver);
  DeviceProperties properties;
  properties.description = absl::StrCat(found.name, ", driver for CUDA ", CudaVersion(driver));
  properties.compute_capability = 10 * found.major + found.minor;
  properties.memory_total_bytes = static_cast<int64_t>(total);
  properties.memory_free_bytes = static_cast<int64_t>(free);
  return properties;
}

absl::Status CudaDevice::Attach() {
  DT_RETURN_IF_ERROR(ToStatus(cudaSetDevice(ordinal_), "the GPU cannot be used"));
  if (stream_ != nullptr) return absl::OkStatus();
  return ToStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                  "the GPU gives no stream");
}

// Copies within its memory, which read and write every byte.
absl::StatusOr<double> CudaDevice::MeasureBandwidth() {
  constexpr int64_t kBytes = int64_t{256} << 20;
  constexpr int kCopies = 10;
  DT_RETURN_IF_ERROR(Attach());
  DT_ASSIGN_OR_RETURN(const DeviceBuffer from, Allocate(kBytes));
  DT_ASSIGN_OR_RETURN(const DeviceBuffer to, Allocate(kBytes));
  cudaEvent_t begin = nullptr, end = nullptr;
  Note(cudaEventCreate(&begin));
  Note(cudaEventCreate(&end));
  Copy(to.data(), from.data(), kBytes);
  Note(cudaEventRecord(begin, stream_));
  for (int i = 0; i < kCopies; ++i) Copy(to.data(), from.data(), kBytes);
  Note(cudaEventRecord(end, stream_));
  const absl::Status status = Wait();
  float milliseconds = 0;
  if (status.ok()) Note(cudaEventElapsedTime(&milliseconds, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  DT_RETURN_IF_ERROR(status);
  return 2.0 * kCopies * kBytes / (1e6 * std::max(milliseconds, 1e-3f));
}

absl::StatusOr<DeviceBuffer> CudaDevice::Allocate(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) {
    cudaGetLastError();  // a refusal is nothing that later calls should tell of
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(
        absl::StrCat("the GPU has ", FormatBytes(static_cast<int64_t>(free)), " left of ",
                     FormatBytes(static_cast<int64_t>(total)), ", ", FormatBytes(bytes),
                     " are wanted; somebody else may have taken some since the plan was made (",
                     cudaGetErrorString(error), ")"));
  }
  CountHeld(bytes);
  DeviceBuffer buffer(this, static_cast<uint8_t*>(data), bytes, /*on_host=*/false);
  Note(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), stream_));
  DT_RETURN_IF_ERROR(Wait());
  return buffer;
}

absl::StatusOr<DeviceBuffer> CudaDevice::AllocateHost(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot pin ", FormatBytes(bytes), " of the host's memory: ", cudaGetErrorString(error)));
  }
  std::memset(data, 0, static_cast<size_t>(bytes));
  return DeviceBuffer(this, static_cast<uint8_t*>(data), bytes, /*on_host=*/true);
}

absl::StatusOr<std::unique_ptr<DeviceStream>> CudaDevice::MakeStream() {
  cudaStream_t stream = nullptr;
  DT_RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                              "the GPU gives no stream"));
  return std::make_unique<CudaStream>(this, stream);
}

void CudaDevice::Free(uint8_t* data, int64_t bytes, bool on_host) {
  if (on_host) {
    cudaFreeHost(data);
    return;
  }
  cudaFree(data);
  CountHeld(-bytes);
}

void CudaDevice::CopyBytes(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0 || error_ != cudaSuccess) return;
  Note(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream_));
}

absl::Status CudaDevice::Wait() {
  NoteLaunches();
  if (error_ == cudaSuccess) Note(cudaStreamSynchronize(stream_));
  return ToStatus(error_, "the GPU failed");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int ordinal) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return NoDevice(error);
  }
  if (ordinal >= count) {
    return absl::NotFoundError(absl::StrCat("there is no GPU ", ordinal, ": CUDA shows ", count,
                                            count == 1 ? " GPU" : " GPUs"));
  }
  return std::make_unique<CudaDevice>(ordinal);
}

}  // namespace dovetail::worker
