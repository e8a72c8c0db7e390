#include "coordinator/placement/plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

const DeviceInfo* FindDevice(const std::vector<DeviceInfo>& devices, const std::string& name) {
  for (const DeviceInfo& device : devices) {
    if (device.name == name) return &device;
  }
  return nullptr;
}

// Norm vectors are kept as f32 whatever their type; only matrices need a kernel.
absl::Status CheckWeightTypes(const model::ModelConfig& config, const model::GgufFile& file,
                              const std::vector<ModulePlacement>& modules,
                              const std::vector<DeviceInfo>& devices) {
  constexpr size_t kMostNamed = 3;
  std::map<std::pair<std::string, WeightType>, std::vector<std::string>> refused;
  for (const ModulePlacement& module : modules) {
    const DeviceInfo* device = FindDevice(devices, module.device);
    DT_CHECK(device != nullptr);
    for (const model::WeightSpec& spec : model::WeightsOf(config, module.op)) {
      const model::GgufTensor* tensor = file.FindTensor(spec.tensor);
      if (tensor == nullptr || spec.is_vector ||
          std::count(device->weight_types.begin(), device->weight_types.end(), tensor->type) > 0) {
        continue;
      }
      refused[{device->name, tensor->type}].push_back(spec.tensor);
    }
  }
  std::vector<std::string> mistakes;
  for (auto& [key, tensors] : refused) {
    const size_t more = tensors.size() - std::min(tensors.size(), kMostNamed);
    tensors.resize(tensors.size() - more);
    mistakes.push_back(absl::StrCat(key.first, " cannot compute with ", InfoOf(key.second).name,
                                    " weights: ", absl::StrJoin(tensors, ", "),
                                    more > 0 ? absl::StrCat(" and ", more, " more") : ""));
  }
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

Route CompileRoute(const std::vector<PlacedModule>& modules) {
  Route route;
  for (const PlacedModule& module : modules) {
    if (route.empty() || route.back().worker != module.device) route.push_back({module.device, {}});
    route.back().ops.push_back(module.op);
  }
  return route;
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const model::ModelConfig& config, const model::GgufFile& file,
                              std::vector<ModulePlacement> placements,
                              const std::vector<DeviceInfo>& devices, const StepShape& shape) {
  DT_RETURN_IF_ERROR(CheckWeightTypes(config, file, placements, devices));
  Plan plan;
  for (ModulePlacement& placement : placements) {
    const int64_t bytes = StoredBytesOf(config, file, placement.op);
    plan.modules.push_back({std::move(placement), bytes});
  }
  plan.route = CompileRoute(plan.modules);
  plan.shape = shape;
  for (const DeviceInfo& device : devices) {
    PlacedWorker worker{device, {}, {}};
    for (const PlacedModule& module : plan.modules) {
      if (module.device == device.name) worker.ops.push_back(module.op);
    }
    if (!worker.ops.empty()) plan.workers.push_back(std::move(worker));
  }
  DT_RETURN_IF_ERROR(PlanMemory(config, file, plan.route, shape, &plan.workers));
  DT_RETURN_IF_ERROR(CheckMemory(config, file, plan.route, shape, plan.workers));
  return plan;
}

std::string DescribePlan(const Plan& plan, const model::ModelConfig& config) {
  std::string places;
  for (const PlacedWorker& worker : plan.workers) {
    absl::StrAppend(&places, "  ", worker.device.name, ": ", DescribeOps(worker.ops), "\n");
  }
  std::vector<std::string> hops = {"coordinator"};
  for (const Segment& segment : plan.route) hops.push_back(segment.worker);
  hops.push_back("coordinator");
  int64_t kv_bytes = 0;
  for (const PlacedWorker& worker : plan.workers) kv_bytes += worker.memory.kv;
  const std::string nextn =
      config.num_nextn_layers == 0
          ? ""
          : absl::StrCat("; ", config.num_nextn_layers, " for multi-token prediction left out");
  return absl::StrCat(
      config.name, " (", config.architecture, ", ", config.num_hidden_layers, " layers", nextn,
      ") on ", plan.workers.size(), plan.workers.size() == 1 ? " worker" : " workers", "\n", places,
      "route: ", absl::StrJoin(hops, " -> "), "\n", "context: ", plan.shape.context_length,
      " tokens per sequence; KV cache: ", int64_t{plan.shape.num_kv_blocks} * kKvBlockTokens,
      " tokens, ", FormatBytes(kv_bytes), "\n", FormatMemoryTable(plan.workers));
}

}  // namespace dovetail::coordinator
