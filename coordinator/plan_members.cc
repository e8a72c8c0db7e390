#include "coordinator/plan_members.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace dovetail::coordinator {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 4;

int64_t FileBytesOrZero(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_blocks) * 512 : 0;
}

// What a worker already holds in the run directory; its own figure of available memory includes it.
int64_t SegmentBytes(const transport::RunDir& run_dir, const std::string& worker) {
  return FileBytesOrZero(run_dir.WeightsPath(worker)) + FileBytesOrZero(run_dir.KvPath(worker));
}

std::string GiB(int64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (1 << 30));
}

// Workers of one node, without a budget of their own.
struct Sharers {
  int64_t available = 0;  // without any segments: the largest figure that one of them saw
  int64_t held = 0;       // in their segments
  int64_t needed = 0;
  std::vector<std::string> names;
};

absl::Status CheckSharedMemory(const PlanInputs& inputs, const std::vector<ClusterMember>& members,
                               const Plan& plan) {
  std::map<int, Sharers> nodes;
  for (const ClusterMember& member : members) {
    const std::string& name = member.device.name;
    if (inputs.memory.count(name) > 0) continue;
    Sharers& node = nodes[member.numa_node];
    const int64_t held = SegmentBytes(*inputs.run_dir, name);
    node.available = std::max(node.available, member.device.memory_bytes - held);
    node.held += held;
    for (const PlacedWorker& worker : plan.workers) {
      if (worker.device.name != name) continue;
      node.needed += worker.memory.total();
      node.names.push_back(absl::StrCat(name, " ", GiB(worker.memory.total())));
    }
  }
  for (const auto& [node, sharers] : nodes) {
    if (sharers.needed <= sharers.available + sharers.held) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "the workers ", absl::StrJoin(sharers.names, ", "), " need ", GiB(sharers.needed),
        " together, their machine has ", GiB(sharers.available + sharers.held),
        " available: lower `context_length` or `kv_tokens`, or take a smaller model"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Plan> PlanOver(const PlanInputs& inputs, const std::vector<DeviceInfo>& devices) {
  DT_ASSIGN_OR_RETURN(std::vector<ModulePlacement> placements,
                      Place(*inputs.config, *inputs.file, inputs.rules, devices));
  return MakePlan(*inputs.config, *inputs.file, std::move(placements), devices, inputs.shape);
}

}  // namespace

absl::StatusOr<Plan> PlanMembers(const PlanInputs& inputs,
                                 const std::vector<ClusterMember>& members) {
  std::vector<DeviceInfo> devices;
  for (const ClusterMember& member : members) {
    DeviceInfo& device = devices.emplace_back(member.device);
    const auto budget = inputs.memory.find(device.name);
    if (budget != inputs.memory.end()) device.memory_bytes = budget->second;
  }
  DT_ASSIGN_OR_RETURN(Plan plan, PlanOver(inputs, devices));
  DT_RETURN_IF_ERROR(CheckSharedMemory(inputs, members, plan));
  return plan;
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
