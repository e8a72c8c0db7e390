// DeviceInfo: a device that modules can be placed on: what a worker registered, or what a person
// described for a plan. Plain data and pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_INFO_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_INFO_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/packed_layout.h"
#include "base/weight_type.h"

namespace dovetail::coordinator {

// kSimt: a GPU that is not there; its kernels run on a CPU, slowly, in the host's memory.
enum class DeviceKind { kCpu, kCuda, kSimt };

struct DeviceInfo {
  std::string name;  // "cpu:0", "host-b/cuda:1"
  DeviceKind kind = DeviceKind::kCpu;
  int64_t memory_bytes = 0;   // what is free, or what was configured
  int64_t reserve_bytes = 0;  // of it, what stays free
  int64_t held_bytes = 0;     // of it, what a worker holds in memory of its own
  int num_threads = 1;        // of a CPU worker
  PackedLayout layout = PackedLayout::kP16;
  std::vector<WeightType> weight_types;  // that its kernels compute with
  int numa_node = -1;                    // -1: not bound to one
  // Devices with the same pool share one memory of memory_bytes; empty: it is this device's alone.
  std::string memory_pool;
  std::string device_id;        // of a GPU: the same for two workers on one; empty: not known
  int compute_capability = 0;   // of a GPU: 89 is 8.9; 0: not known
  double bandwidth = 0;         // bytes read per second; 0: not known
  double upload_bandwidth = 0;  // of a GPU, from the host's memory; 0: not known
  double int8_ops = 0;          // multiplications and additions per second; 0: not known

  bool has_gpu_kernels() const { return kind != DeviceKind::kCpu; }
  int64_t budget() const { return memory_bytes - reserve_bytes; }
};

// Whether a name in a rule means this device: its own name, a group ("cuda:*", "host-b/cpu:*"), or
// NUMA nodes ("numa:0", "numa:*").
bool Means(absl::string_view pattern, const DeviceInfo& device);

// The kind that a device's name says ("host-b/cuda:0"), or nullopt: there are no such workers.
std::optional<DeviceKind> KindOf(absl::string_view name);

// Whether it is a well-formed name of a device or a group.
bool IsDevicePattern(absl::string_view pattern);
bool IsGroup(absl::string_view pattern);  // "cuda:*", "numa:0"

std::string DeviceNames(absl::Span<const DeviceInfo> devices);  // "cpu:0, cpu:1"
const DeviceInfo* FindDevice(absl::Span<const DeviceInfo> devices, absl::string_view name);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_DEVICE_INFO_H_
