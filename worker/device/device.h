// Device: a GPU as a worker uses it: its memory, its one stream, its kernels.
//
// Owned by main(), outlives everything that was allocated from it. Attach() binds it to the thread
// that uses it from then on, the executor's; Properties() may be called by any thread.
// Copies and kernels only enqueue, in order; Wait() waits for all and tells of the first error,
// after which nothing more is run. What goes to the host's memory may be read when it was waited
// for, and not before. What may wait for another process is enqueued on a DeviceStream, never on
// the device's own.
#ifndef DOVETAIL_WORKER_DEVICE_DEVICE_H_
#define DOVETAIL_WORKER_DEVICE_DEVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device_table.h"

namespace dovetail::worker {

class Device;

// Memory of a device, or of the host where copies go to and from. Movable; freed with its owner.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device* device, uint8_t* data, int64_t bytes, bool on_host)
      : device_(device), data_(data), bytes_(bytes), on_host_(on_host) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(on_host_, other.on_host_);
    return *this;
  }
  ~DeviceBuffer();

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
  bool on_host_ = false;
};

// Kernels that a device has taken down, small copies among them, with the arguments that they had.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  virtual int64_t num_kernels() const = 0;
};

// A queue of work beside the device's own stream, for what may wait for another process. Belongs to
// the device's thread and goes before the device does.
class DeviceStream {
 public:
  virtual ~DeviceStream() = default;
  // A cudaStream_t, or what a stand-in takes for one (stand_in_stream.h).
  virtual void* handle() = 0;
  // Whether all that was enqueued is done. Never waits.
  virtual absl::StatusOr<bool> Done() = 0;
};

// Memory of AllocateLink() as another process finds it; plain bytes.
struct LinkMemory {
  uint64_t process = 0;  // ProcessToken() of its owner
  uint64_t address = 0;  // there
  int64_t bytes = 0;
  char handle[128] = {};
};

struct DeviceProperties {
  std::string description;     // "NVIDIA H200, driver 580.65"
  std::string id;              // of the piece of hardware; empty: it is none
  int compute_capability = 0;  // 90 is 9.0; 0: none
  int64_t memory_total_bytes = 0;
  int64_t memory_free_bytes = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  // Bytes that are allocated. Thread-safe.
  int64_t held_bytes() const { return held_bytes_.load(std::memory_order_relaxed); }
  // How often a graph was launched. Thread-safe.
  int64_t graph_launches() const { return graph_launches_.load(std::memory_order_relaxed); }

  virtual absl::StatusOr<DeviceProperties> Properties() = 0;
  // Bytes of its memory that it reads and writes per second, in 1e9. Called where nothing else
  // runs.
  virtual absl::StatusOr<double> MeasureBandwidth() = 0;
  // Bytes that it gets from the host's memory per second, in 1e9; 0: not known.
  virtual absl::StatusOr<double> MeasureUpload() = 0;

  virtual absl::Status Attach() = 0;
  // All bytes are zero. kResourceExhausted: how much is wanted and how much there is.
  virtual absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) = 0;
  virtual absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) = 0;
  // The same as Allocate(), of memory that links to other GPUs read and write at any time, whatever
  // the device's own stream does.
  virtual absl::StatusOr<DeviceBuffer> AllocateLink(int64_t bytes) = 0;
  // For other workers' devices, and what they do with it: until UnmapLink() they may copy from what
  // MapLink() returns. kUnimplemented: not between these two; why.
  virtual absl::StatusOr<LinkMemory> ShareLink(const DeviceBuffer& buffer) = 0;
  virtual absl::StatusOr<const uint8_t*> MapLink(const LinkMemory& memory) = 0;
  virtual void UnmapLink(const LinkMemory& memory, const uint8_t* mapped) = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream() = 0;

  virtual const kernels::DeviceTable& kernels() const = 0;
  virtual void* stream() = 0;  // for kernels()
  virtual void Upload(void* to, const void* from, int64_t bytes) = 0;
  virtual void Download(void* to, const void* from, int64_t bytes) = 0;
  virtual void Copy(void* to, const void* from, int64_t bytes) = 0;  // on the device
  virtual absl::Status Wait() = 0;

  // The same by a kernel, for pieces that are small, in memory of Allocate() and AllocateHost();
  // with `signal` the host is told that they, and all that was enqueued before, are done. May be
  // taken down.
  virtual void CopySmall(const kernels::CopyPieces& pieces, bool signal) = 0;
  // Waits for the last signal, which takes less than to wait for all: where what was enqueued is
  // done soon, it is seen without a call of the driver. Errors are those of Wait().
  absl::Status AwaitSignal() { return AwaitEarlierSignal(0); }
  // The same of the one that so many came after, one at most.
  virtual absl::Status AwaitEarlierSignal(int later) = 0;

  // A second queue, of uploads that go on while kernels run, into one of kNumSides buffers at a
  // time: BeginAside(), uploads, EndAside(). What is enqueued after AwaitAside() sees what they
  // brought; what was enqueued before ReleaseAside() is the last that does, and the buffer's next
  // uploads wait for it. A host's memory that is registered is read at full speed.
  static constexpr int kNumSides = 2;
  virtual void BeginAside(int side) = 0;
  virtual void UploadAside(void* to, const void* from, int64_t bytes) = 0;
  virtual void EndAside(int side) = 0;
  virtual void AwaitAside(int side) = 0;
  virtual void ReleaseAside(int side) = 0;
  // The host waits for all of them.
  virtual void WaitAside() = 0;
  virtual absl::Status RegisterHost(const void* data, int64_t bytes) = 0;
  virtual void UnregisterHost(const void* data) = 0;

  // Between them kernels are taken down and not run; nothing else may be enqueued. An error: the
  // device cannot, and goes on as if nothing had been started.
  virtual void BeginCapture() = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() = 0;
  // Enqueues all of them, in order.
  void Launch(const DeviceGraph& graph) {
    graph_launches_.fetch_add(1, std::memory_order_relaxed);
    Enqueue(graph);
  }

 protected:
  void CountHeld(int64_t bytes) { held_bytes_.fetch_add(bytes, std::memory_order_relaxed); }

 private:
  friend class DeviceBuffer;
  std::atomic<int64_t> held_bytes_{0};
  std::atomic<int64_t> graph_launches_{0};
  virtual void Enqueue(const DeviceGraph& graph) = 0;
  virtual void Free(uint8_t* data, int64_t bytes, bool on_host) = 0;
};

inline DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) device_->Free(data_, bytes_, on_host_);
}

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_DEVICE_H_
