// SimtDevice: a GPU that is not there: its kernels run on the SIMT shim, its memory is the host's.
//
// Slow, for tests and for trying out placements. While no kernel and no copy runs its memory cannot
// be accessed: a host that reads or writes it where a GPU's would not be its own ends with a
// signal. Memory of links is open always: other threads read and write it.
#ifndef DOVETAIL_WORKER_DEVICE_SIMT_DEVICE_H_
#define DOVETAIL_WORKER_DEVICE_SIMT_DEVICE_H_

#include <cstdint>
#include <map>
#include <memory>

#include "base/posix.h"
#include "kernels/simt/simt.h"
#include "worker/device/device.h"

namespace dovetail::worker {

class SimtDevice : public Device {
 public:
  // Each launch has a seed of its own, which follow from `seed`; 0: ascending order.
  explicit SimtDevice(uint64_t seed);

  absl::StatusOr<DeviceProperties> Properties() override;
  absl::StatusOr<double> MeasureBandwidth() override;
  absl::Status Attach() override { return absl::OkStatus(); }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override {
    return AllocateOpen(bytes, /*on_host=*/true);
  }
  absl::StatusOr<DeviceBuffer> AllocateLink(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceStream>> MakeStream() override;
  const kernels::DeviceTable& kernels() const override;
  void* stream() override { return &stream_; }
  void Upload(void* to, const void* from, int64_t bytes) override { CopyBytes(to, from, bytes); }
  void Download(void* to, const void* from, int64_t bytes) override { CopyBytes(to, from, bytes); }
  void Copy(void* to, const void* from, int64_t bytes) override { CopyBytes(to, from, bytes); }
  absl::Status Wait() override;

 private:
  absl::StatusOr<DeviceBuffer> AllocateOpen(int64_t bytes, bool on_host);
  void Free(uint8_t* data, int64_t bytes, bool on_host) override;
  void CopyBytes(void* to, const void* from, int64_t bytes);
  void SetAccess(bool open);

  bool guarded() const;

  simt::Stream stream_;
  // By where they begin: what is guarded, and the host's and what links use.
  std::map<uint8_t*, MemoryMap> memory_, open_memory_;
  int64_t memory_bytes_ = 0;  // of memory_
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_SIMT_DEVICE_H_
