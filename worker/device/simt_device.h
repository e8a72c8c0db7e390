// SimtDevice: a GPU that is not there: its kernels run on the SIMT shim, its memory is the host's.
//
// Slow, for tests and for trying out placements. While no kernel and no copy runs its memory cannot
// be accessed: a host that reads or writes it where a GPU's would not be its own ends with a
// signal. Memory of links is open always: other threads read and write it. What comes up is read
// when it is enqueued, what goes to the host's memory arrives when it is waited for
// (held_writes.h): as early and as late as may be.
#ifndef DOVETAIL_WORKER_DEVICE_SIMT_DEVICE_H_
#define DOVETAIL_WORKER_DEVICE_SIMT_DEVICE_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/posix.h"
#include "kernels/simt/simt.h"
#include "worker/device/device.h"
#include "worker/device/held_writes.h"

namespace dovetail::worker {

// Calls that a CUDA device would make of the driver.
struct DeviceCalls {
  int64_t copies = 0;
  int64_t kernels = 0;  // but those of graphs
  int64_t graphs = 0;
  int64_t waits = 0;  // for everything; a signal is seen without a call
};

class SimtDevice : public Device {
 public:
  // Each launch has a seed of its own, which follow from `seed`; 0: ascending order.
  explicit SimtDevice(uint64_t seed);

  absl::StatusOr<DeviceProperties> Properties() override;
  absl::StatusOr<double> MeasureBandwidth() override;
  absl::StatusOr<double> MeasureUpload() override { return 0; }
  absl::Status Attach() override { return absl::OkStatus(); }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateLink(int64_t bytes) override;
  absl::StatusOr<LinkMemory> ShareLink(const DeviceBuffer& buffer) override;
  absl::StatusOr<const uint8_t*> MapLink(const LinkMemory& memory) override;
  void UnmapLink(const LinkMemory& memory, const uint8_t* mapped) override;
  absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream() override;
  const kernels::DeviceTable& kernels() const override;
  void* stream() override { return &stream_; }
  void Upload(void* to, const void* from, int64_t bytes) override { CopyBytes(to, from, bytes); }
  void Download(void* to, const void* from, int64_t bytes) override;
  void Copy(void* to, const void* from, int64_t bytes) override { CopyBytes(to, from, bytes); }
  absl::Status Wait() override;
  void CopySmall(const kernels::CopyPieces& pieces, bool signal) override;
  absl::Status AwaitEarlierSignal(int later) override;
  void BeginAside(int side) override;
  void UploadAside(void* to, const void* from, int64_t bytes) override;
  void EndAside(int /*side*/) override {}
  void AwaitAside(int side) override;
  void ReleaseAside(int side) override;
  void WaitAside() override {}
  absl::Status RegisterHost(const void* /*data*/, int64_t /*bytes*/) override {
    return absl::OkStatus();
  }
  void UnregisterHost(const void* /*data*/) override {}
  void BeginCapture() override;
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() override;

  // So far; not while something is being enqueued.
  DeviceCalls calls() const;

 private:
  void Enqueue(const DeviceGraph& graph) override;
  void Free(uint8_t* data, int64_t bytes, bool on_host) override;
  void CopyBytes(void* to, const void* from, int64_t bytes);
  // After the kernel that has copied them to the host's twin.
  void HoldPieces(const kernels::CopyPieces& pieces, bool signal);
  absl::Status StreamStatus() const;
  void SetAccess(bool open);

  bool guarded() const;

  // Uploads take place when they are waited for: not before, so that a missing wait is seen.
  struct PendingUpload {
    void* to;
    const void* from;
    int64_t bytes;
  };
  struct Side {
    std::vector<PendingUpload> uploads;
    bool in_use = false;
  };

  simt::Stream stream_;
  std::array<Side, kNumSides> sides_;
  int side_ = 0;  // of what is being enqueued
  simt::Launches captured_;
  HeldWrites held_writes_;
  // What the device has told, and what was enqueued that tells something.
  uint64_t flag_ = 0, raised_ = 0, signals_ = 0;
  int32_t blocks_done_ = 0;
  DeviceCalls calls_;
  // By where they begin: what is guarded, and the host's and what links use.
  std::map<uint8_t*, MemoryMap> memory_, open_memory_;
  std::map<uint8_t*, UniqueFd> link_files_;  // of what links use, for other processes
  std::map<const uint8_t*, MemoryMap> mapped_links_;
  int64_t memory_bytes_ = 0;  // of memory_
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_SIMT_DEVICE_H_
