#include "worker/device/cuda_device.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/byte_size.h"
#include "base/deadline.h"
#include "base/process_token.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_table.h"
#include "worker/device/await_flag.h"

namespace dovetail::worker {
namespace {

// A layer of a hybrid is on the GPU for some hundred microseconds, in which a thread that sleeps
// would be woken late; a step that is all there takes milliseconds, which should burn no processor.
constexpr absl::Duration kSpin = absl::Microseconds(500);

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

class CudaGraph : public DeviceGraph {
 public:
  CudaGraph(cudaGraphExec_t exec, int64_t num_kernels, uint64_t num_signals)
      : exec_(exec), num_kernels_(num_kernels), num_signals_(num_signals) {}
  ~CudaGraph() override { cudaGraphExecDestroy(exec_); }
  int64_t num_kernels() const override { return num_kernels_; }
  cudaGraphExec_t exec() const { return exec_; }
  uint64_t num_signals() const { return num_signals_; }

 private:
  cudaGraphExec_t exec_;
  int64_t num_kernels_;
  uint64_t num_signals_;
};

class CudaDevice : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {}
  ~CudaDevice() override;

  absl::StatusOr<DeviceProperties> Properties() override;
  absl::StatusOr<double> MeasureBandwidth() override;
  absl::StatusOr<double> MeasureUpload() override;
  absl::Status Attach() override;
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateLink(int64_t bytes) override { return Allocate(bytes); }
  absl::StatusOr<LinkMemory> ShareLink(const DeviceBuffer& buffer) override;
  absl::StatusOr<const uint8_t*> MapLink(const LinkMemory& memory) override;
  void UnmapLink(const LinkMemory& memory, const uint8_t* mapped) override;
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
  void CopySmall(const kernels::CopyPieces& pieces, bool signal) override;
  absl::Status AwaitEarlierSignal(int later) override;
  void BeginAside(int side) override;
  void UploadAside(void* to, const void* from, int64_t bytes) override;
  void EndAside(int side) override;
  void AwaitAside(int side) override;
  void ReleaseAside(int side) override;
  void WaitAside() override;
  absl::Status RegisterHost(const void* data, int64_t bytes) override;
  void UnregisterHost(const void* data) override;
  void BeginCapture() override;
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() override;

  // What launches so far have left behind, which other calls would take for their own.
  void NoteLaunches() { Note(cudaGetLastError()); }

 private:
  void Enqueue(const DeviceGraph& graph) override;
  void Free(uint8_t* data, int64_t bytes, bool on_host) override;
  void CopyBytes(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind);
  void Note(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }

  absl::Status MakeQueues();
  absl::Status MakeSignal();
  // Looks for the end of what is enqueued for kSpin, then sleeps until it comes.
  cudaError_t WaitForStream();
  cudaError_t SleepForStream();
  // What comes after the signal is waited for as well where a graph has given it.
  cudaError_t SleepForSignal(uint64_t signal);
  // That the GPU takes for copies.
  absl::StatusOr<double> SecondsOf(int times, absl::FunctionRef<void()> copy);

  const int ordinal_;
  cudaStream_t stream_ = nullptr;
  cudaStream_t aside_ = nullptr;
  // Of each side: its uploads are done, and nobody reads what they brought any more.
  std::array<cudaEvent_t, kNumSides> brought_ = {}, released_ = {};
  cudaEvent_t reached_ = nullptr;  // what SleepForStream() sleeps on
  // Behind the last signals that no graph gave, by turns.
  struct Mark {
    cudaEvent_t event = nullptr;
    uint64_t signal = 0;
  };
  std::array<Mark, 2> marks_ = {};
  bool capturing_ = false;
  kernels::DoneSignal signal_ = {};
  uint64_t signals_ = 0;                 // that kernels which were started will have given
  uint64_t signals_before_capture_ = 0;  // and what is taken down has none of
  cudaError_t error_ = cudaSuccess;      // the first one
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
  properties.id =
      absl::BytesToHexString(absl::string_view(found.uuid.bytes, sizeof(found.uuid.bytes)));
  properties.compute_capability = 10 * found.major + found.minor;
  properties.memory_total_bytes = static_cast<int64_t>(total);
  properties.memory_free_bytes = static_cast<int64_t>(free);
  return properties;
}

CudaDevice::~CudaDevice() {
  for (cudaEvent_t event : brought_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  for (cudaEvent_t event : released_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (reached_ != nullptr) cudaEventDestroy(reached_);
  for (const Mark& mark : marks_) {
    if (mark.event != nullptr) cudaEventDestroy(mark.event);
  }
  if (signal_.flag != nullptr) cudaFreeHost(signal_.flag);
  if (signal_.raised != nullptr) cudaFree(signal_.raised);
  if (aside_ != nullptr) cudaStreamDestroy(aside_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaDevice::Attach() {
  DT_RETURN_IF_ERROR(ToStatus(cudaSetDevice(ordinal_), "the GPU cannot be used"));
  return stream_ != nullptr ? absl::OkStatus() : MakeQueues();
}

absl::Status CudaDevice::MakeQueues() {
  for (cudaStream_t* stream : {&stream_, &aside_}) {
    DT_RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking),
                                "the GPU gives no stream"));
  }
  for (cudaEvent_t* event : {&reached_, &marks_[0].event, &marks_[1].event}) {
    DT_RETURN_IF_ERROR(
        ToStatus(cudaEventCreateWithFlags(event, cudaEventDisableTiming | cudaEventBlockingSync),
                 "the GPU gives no event"));
  }
  for (int side = 0; side < kNumSides; ++side) {
    for (cudaEvent_t* event : {&brought_[side], &released_[side]}) {
      DT_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(event, cudaEventDisableTiming),
                                  "the GPU gives no event"));
    }
  }
  return MakeSignal();
}

absl::Status CudaDevice::MakeSignal() {
  struct Counters {
    uint64_t raised;
    int32_t blocks;
  };
  void *flag = nullptr, *counters = nullptr;
  DT_RETURN_IF_ERROR(ToStatus(cudaHostAlloc(&flag, sizeof(uint64_t), cudaHostAllocDefault),
                              "cannot pin memory of the host"));
  signal_.flag = static_cast<uint64_t*>(flag);
  *signal_.flag = 0;
  DT_RETURN_IF_ERROR(
      ToStatus(cudaMalloc(&counters, sizeof(Counters)), "the GPU has no memory for a counter"));
  signal_.raised = &static_cast<Counters*>(counters)->raised;
  signal_.blocks = &static_cast<Counters*>(counters)->blocks;
  return ToStatus(cudaMemsetAsync(counters, 0, sizeof(Counters), stream_), "the GPU failed");
}

absl::StatusOr<double> CudaDevice::SecondsOf(int times, absl::FunctionRef<void()> copy) {
  cudaEvent_t begin = nullptr, end = nullptr;
  Note(cudaEventCreate(&begin));
  Note(cudaEventCreate(&end));
  copy();  // once to warm up
  Note(cudaEventRecord(begin, stream_));
  for (int i = 0; i < times; ++i) copy();
  Note(cudaEventRecord(end, stream_));
  const absl::Status status = Wait();
  float milliseconds = 0;
  if (status.ok()) Note(cudaEventElapsedTime(&milliseconds, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  DT_RETURN_IF_ERROR(status);
  return 1e-3 * std::max(milliseconds, 1e-3f);
}

// Copies within its memory, which read and write every byte.
absl::StatusOr<double> CudaDevice::MeasureBandwidth() {
  constexpr int64_t kBytes = int64_t{256} << 20;
  constexpr int kCopies = 10;
  DT_RETURN_IF_ERROR(Attach());
  DT_ASSIGN_OR_RETURN(const DeviceBuffer from, Allocate(kBytes));
  DT_ASSIGN_OR_RETURN(const DeviceBuffer to, Allocate(kBytes));
  DT_ASSIGN_OR_RETURN(const double seconds,
                      SecondsOf(kCopies, [&] { Copy(to.data(), from.data(), kBytes); }));
  return 2e-9 * kCopies * kBytes / seconds;
}

absl::StatusOr<double> CudaDevice::MeasureUpload() {
  constexpr int64_t kBytes = int64_t{64} << 20;
  constexpr int kCopies = 5;
  DT_RETURN_IF_ERROR(Attach());
  DT_ASSIGN_OR_RETURN(const DeviceBuffer from, AllocateHost(kBytes));
  DT_ASSIGN_OR_RETURN(const DeviceBuffer to, Allocate(kBytes));
  DT_ASSIGN_OR_RETURN(const double seconds,
                      SecondsOf(kCopies, [&] { Upload(to.data(), from.data(), kBytes); }));
  return 1e-9 * kCopies * kBytes / seconds;
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

absl::StatusOr<LinkMemory> CudaDevice::ShareLink(const DeviceBuffer& buffer) {
  LinkMemory memory = {.process = ProcessToken(),
                       .address = reinterpret_cast<uint64_t>(buffer.data()),
                       .bytes = buffer.bytes()};
  cudaIpcMemHandle_t handle;
  static_assert(sizeof(handle) <= sizeof(memory.handle));
  const cudaError_t error = cudaIpcGetMemHandle(&handle, buffer.data());
  if (error != cudaSuccess) {
    cudaGetLastError();  // a refusal is nothing that later calls should tell of
    return absl::UnimplementedError(
        absl::StrCat("the GPU's memory cannot be shared: ", cudaGetErrorString(error)));
  }
  std::memcpy(memory.handle, &handle, sizeof(handle));
  return memory;
}

absl::StatusOr<const uint8_t*> CudaDevice::MapLink(const LinkMemory& memory) {
  if (memory.process == ProcessToken()) return reinterpret_cast<const uint8_t*>(memory.address);
  cudaIpcMemHandle_t handle;
  std::memcpy(&handle, memory.handle, sizeof(handle));
  void* data = nullptr;
  const cudaError_t error = cudaIpcOpenMemHandle(&data, handle, cudaIpcMemLazyEnablePeerAccess);
  if (error == cudaSuccess) return static_cast<const uint8_t*>(data);
  cudaGetLastError();
  return absl::UnimplementedError(
      absl::StrCat("the GPU cannot map the other one's memory: ", cudaGetErrorString(error)));
}

void CudaDevice::UnmapLink(const LinkMemory& memory, const uint8_t* mapped) {
  if (memory.process != ProcessToken()) cudaIpcCloseMemHandle(const_cast<uint8_t*>(mapped));
}

void CudaDevice::BeginAside(int side) {
  if (error_ == cudaSuccess) Note(cudaStreamWaitEvent(aside_, released_[side], 0));
}

void CudaDevice::UploadAside(void* to, const void* from, int64_t bytes) {
  if (error_ != cudaSuccess) return;
  Note(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, aside_));
}

void CudaDevice::EndAside(int side) {
  if (error_ == cudaSuccess) Note(cudaEventRecord(brought_[side], aside_));
}

void CudaDevice::AwaitAside(int side) {
  if (error_ == cudaSuccess) Note(cudaStreamWaitEvent(stream_, brought_[side], 0));
}

void CudaDevice::ReleaseAside(int side) {
  if (error_ == cudaSuccess) Note(cudaEventRecord(released_[side], stream_));
}

void CudaDevice::WaitAside() {
  if (aside_ != nullptr && error_ == cudaSuccess) Note(cudaStreamSynchronize(aside_));
}

absl::Status CudaDevice::RegisterHost(const void* data, int64_t bytes) {
  const cudaError_t error = cudaHostRegister(const_cast<void*>(data), static_cast<size_t>(bytes),
                                             cudaHostRegisterDefault);
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // a refusal is nothing that later calls should tell of
  return ToStatus(error, absl::StrCat("cannot pin ", FormatBytes(bytes), " of shared memory"));
}

void CudaDevice::UnregisterHost(const void* data) { cudaHostUnregister(const_cast<void*>(data)); }

void CudaDevice::BeginCapture() {
  if (error_ != cudaSuccess) return;
  signals_before_capture_ = signals_;
  capturing_ = true;
  Note(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> CudaDevice::EndCapture() {
  capturing_ = false;
  if (error_ != cudaSuccess) return ToStatus(error_, "the GPU failed");
  const uint64_t num_signals = signals_ - signals_before_capture_;
  signals_ = signals_before_capture_;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  size_t nodes = 0;
  cudaError_t error = cudaStreamEndCapture(stream_, &graph);
  if (error == cudaSuccess) error = cudaGraphGetNodes(graph, nullptr, &nodes);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&exec, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (error != cudaSuccess) {
    cudaGetLastError();  // a refusal is nothing that later calls should tell of
    return ToStatus(error, "the GPU takes no graph");
  }
  return std::make_unique<CudaGraph>(exec, static_cast<int64_t>(nodes), num_signals);
}

void CudaDevice::Enqueue(const DeviceGraph& graph) {
  if (error_ != cudaSuccess) return;
  const auto& taken = static_cast<const CudaGraph&>(graph);
  Note(cudaGraphLaunch(taken.exec(), stream_));
  signals_ += taken.num_signals();
}

void CudaDevice::CopySmall(const kernels::CopyPieces& pieces, bool signal) {
  if (error_ != cudaSuccess) return;
  kernels().copy_pieces(pieces, signal ? signal_ : kernels::DoneSignal{}, stream_);
  if (!signal) return;
  ++signals_;
  if (capturing_) return;
  Mark& mark = marks_[signals_ % marks_.size()];
  mark.signal = signals_;
  Note(cudaEventRecord(mark.event, stream_));
}

cudaError_t CudaDevice::SleepForStream() {
  const cudaError_t error = cudaEventRecord(reached_, stream_);
  return error == cudaSuccess ? cudaEventSynchronize(reached_) : error;
}

cudaError_t CudaDevice::SleepForSignal(uint64_t signal) {
  const Mark& mark = marks_[signal % marks_.size()];
  return mark.signal == signal ? cudaEventSynchronize(mark.event) : SleepForStream();
}

cudaError_t CudaDevice::WaitForStream() {
  const Deadline end(kSpin);
  do {
    const cudaError_t error = cudaStreamQuery(stream_);
    if (error != cudaErrorNotReady) return error;
    cudaGetLastError();  // "not ready" is nothing that later calls should tell of
  } while (!end.Passed());
  return SleepForStream();
}

// What was started wrongly is known at once; what fails on its way raises no flag, and is told of
// by the stream.
absl::Status CudaDevice::AwaitEarlierSignal(int later) {
  NoteLaunches();
  if (error_ != cudaSuccess) return ToStatus(error_, "the GPU failed");
  const uint64_t wanted = signals_ - static_cast<uint64_t>(later);
  return AwaitFlag(signal_.flag, wanted, kSpin, [this, wanted] {
    Note(SleepForSignal(wanted));
    return ToStatus(error_, "the GPU failed");
  });
}

absl::Status CudaDevice::Wait() {
  NoteLaunches();
  if (error_ == cudaSuccess) Note(WaitForStream());
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
