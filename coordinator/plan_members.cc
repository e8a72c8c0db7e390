#include "coordinator/plan_members.h"

#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "base/worker_name.h"
#include "coordinator/placement/memory_check.h"

namespace dovetail::coordinator {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 4;

int64_t FileBytesOrZero(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_blocks) * 512 : 0;
}

// Members of one node without a budget of their own share what the node has: what is available
// to all of them (the largest figure that one of them saw), and what each holds already. So do
// those on one GPU.
void ShareMemory(const PlanInputs& inputs, std::vector<DeviceInfo>* devices) {
  struct Shared {
    int64_t available = 0;
    int64_t held = 0;
  };
  std::map<std::string, Shared> pools;
  const auto pool_of = [&](const DeviceInfo& device) -> std::string {
    if (inputs.memory.count(device.name) > 0) return "";
    const std::string host =
        HostOf(device.name).empty() ? "" : absl::StrCat(HostOf(device.name), ", ");
    if (device.kind != DeviceKind::kCuda) return absl::StrCat(host, "node ", device.numa_node);
    return device.device_id.empty() ? "" : absl::StrCat(host, "GPU ", device.device_id);
  };
  for (const DeviceInfo& device : *devices) {
    if (pool_of(device).empty()) continue;
    Shared& pool = pools[pool_of(device)];
    int64_t held = device.held_bytes;
    if (device.kind != DeviceKind::kCuda && HostOf(device.name).empty()) {
      held += SegmentBytes(*inputs.run_dir, FullWorkerName(inputs.model, device.name));
    }
    pool.available = std::max(pool.available, device.memory_bytes - held);
    pool.held += held;
  }
  for (DeviceInfo& device : *devices) {
    const auto pool = pools.find(pool_of(device));
    if (pool == pools.end()) continue;
    device.memory_bytes = pool->second.available + pool->second.held;
    device.memory_pool = pool->first;
  }
}

// CPU workers of a host read from one machine's memory, and each measured while others did: what
// one got then is chance, and would make another plan of every start. Threads share it evenly, as
// in `plan`.
void ShareBandwidth(std::vector<DeviceInfo>* devices) {
  struct Machine {
    double bandwidth = 0;
    int threads = 0;
  };
  std::map<std::string, Machine, std::less<>> machines;
  for (const DeviceInfo& device : *devices) {
    if (device.kind != DeviceKind::kCpu) continue;
    Machine& machine = machines[std::string(HostOf(device.name))];
    machine.bandwidth += device.bandwidth;
    machine.threads += device.num_threads;
  }
  for (DeviceInfo& device : *devices) {
    if (device.kind != DeviceKind::kCpu) continue;
    const Machine& machine = machines.find(HostOf(device.name))->second;
    if (machine.threads == 0) continue;
    device.bandwidth = machine.bandwidth * device.num_threads / machine.threads;
  }
}

absl::StatusOr<Plan> PlanOver(const PlanInputs& inputs, const std::vector<DeviceInfo>& devices) {
  Plan plan = PlanByRules(*inputs.config, *inputs.file, inputs.rules, devices, inputs.shape);
  DT_RETURN_IF_ERROR(ErrorsToStatus(plan.diagnostics));
  DT_RETURN_IF_ERROR(CheckMemory(*inputs.config, *inputs.file, plan));
  return plan;
}

}  // namespace

int64_t SegmentBytes(const transport::RunDir& run_dir, const std::string& worker) {
  return FileBytesOrZero(run_dir.WeightsPath(worker)) + FileBytesOrZero(run_dir.KvPath(worker));
}

absl::StatusOr<Plan> PlanMembers(const PlanInputs& inputs,
                                 const std::vector<ClusterMember>& members) {
  std::vector<DeviceInfo> devices;
  for (const ClusterMember& member : members) {
    DeviceInfo& device = devices.emplace_back(member.device);
    const auto budget = inputs.memory.find(device.name);
    if (budget != inputs.memory.end()) device.memory_bytes = budget->second;
  }
  ShareMemory(inputs, &devices);
  ShareBandwidth(&devices);
  return PlanOver(inputs, devices);
}

absl::Status CheckRules(const PlanInputs& inputs, const std::vector<std::string>& workers) {
  std::vector<DeviceInfo> devices;
  for (const std::string& name : workers) {
    DeviceInfo& device = devices.emplace_back();
    device.name = name;
    device.memory_bytes = kNoLimit;
    const auto types = SupportedWeightTypes();
    device.weight_types.assign(types.begin(), types.end());
  }
  return PlanOver(inputs, devices).status();
}

}  // namespace dovetail::coordinator
