#include "worker/registration.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "base/cpu_topology.h"
#include "base/log.h"
#include "base/packed_layout.h"
#include "base/process_memory.h"
#include "base/route.h"
#include "base/weight_type.h"
#include "base/worker_name.h"
#include "dovetail/v1/cluster.pb.h"
#include "worker/device/device.h"

namespace dovetail::worker {
namespace {

uint64_t AllocatedBytes(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

PackedLayout LayoutOf(const DeviceFacts& facts) {
  if (facts.device != nullptr) return PackedLayout::kP16Device;
  return facts.in_place ? PackedLayout::kInPlace : facts.kernels->layout;
}

// What a GPU says of itself. One without a capability of its own lies in the host's memory, as was
// said already.
void AddDevice(Device* device, double upload_bandwidth_gb_per_s, v1::Register* r) {
  const absl::StatusOr<DeviceProperties> properties = device->Properties();
  if (!properties.ok()) {
    LogWarn(properties.status().message());
    return;
  }
  r->set_device_description(properties->description);
  r->set_device_id(properties->id);
  r->set_compute_capability(static_cast<uint32_t>(properties->compute_capability));
  r->set_isa(device->kernels().name);
  if (properties->compute_capability == 0) return;
  r->set_isa(absl::StrCat("sm_", properties->compute_capability));
  r->set_upload_bandwidth_gb_per_s(upload_bandwidth_gb_per_s);
  r->set_memory_total_bytes(static_cast<uint64_t>(properties->memory_total_bytes));
  r->set_memory_held_bytes(static_cast<uint64_t>(device->held_bytes()));
  r->set_memory_available_bytes(
      static_cast<uint64_t>(properties->memory_free_bytes + device->held_bytes()));
}

}  // namespace

v1::Register MakeRegister(const DeviceFacts& facts, const transport::RunDir* run_dir,
                          uint64_t incarnation) {
  v1::Register r;
  r.set_protocol_version(kProtocolVersion);
  r.set_model(facts.model);
  r.set_worker(facts.worker);
  const absl::string_view device = DeviceOf(facts.worker);
  r.set_kind(std::string(device.substr(0, device.find(':'))));
  r.set_incarnation(incarnation);
  r.set_pid(getpid());
  if (run_dir != nullptr) r.set_run_dir_id(run_dir->id());
  r.set_num_threads(static_cast<uint32_t>(facts.num_threads));
  r.set_numa_node(facts.numa_node);
  const MemoryInfo memory = ReadNodeMemory(facts.numa_node);
  r.set_memory_total_bytes(memory.total_bytes);
  const uint64_t held = PrivateResidentBytes();
  r.set_memory_held_bytes(held);
  uint64_t available = memory.available_bytes + held;
  if (run_dir != nullptr) {
    const std::string name = FullWorkerName(facts.model, facts.worker);
    available += AllocatedBytes(run_dir->WeightsPath(name)) + AllocatedBytes(run_dir->KvPath(name));
  }
  r.set_memory_available_bytes(available);
  r.set_read_bandwidth_gb_per_s(facts.read_bandwidth_gb_per_s);
  r.set_isa(facts.kernels->name);
  r.set_cpu_features(kernels::CpuFeatures());
  const absl::string_view layout = PackedLayoutName(LayoutOf(facts));
  r.set_packed_layout(layout.data(), layout.size());
  if (facts.device != nullptr) AddDevice(facts.device, facts.upload_bandwidth_gb_per_s, &r);
  for (WeightType type : SupportedWeightTypes()) {
    const absl::string_view name = InfoOf(type).name;
    r.add_weight_types(name.data(), name.size());
  }
  return r;
}

}  // namespace dovetail::worker
