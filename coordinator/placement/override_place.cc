#include "coordinator/placement/override_place.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/yaml_reader.h"
#include "coordinator/placement/auto_placement.h"
#include "coordinator/placement/device_assigner.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kFlag = "--override-tensor";

void Warn(absl::string_view code, std::string message, Placement* placement) {
  placement->diagnostics.push_back(
      {std::string(code), Severity::kWarning, std::string(kFlag), 0, 0, std::move(message)});
}

// The device of most bytes of an op, "" for what no pattern matches; `split`: matrices lie apart.
std::string MostOf(const model::ModelConfig& config, const model::GgufFile& file,
                   const TensorOverrides& overrides, const Op& op,
                   std::set<const TensorOverride*>* used, bool* split) {
  std::map<std::string, int64_t> votes;
  std::set<std::string> of_matrices;
  for (const model::WeightSpec& spec : model::WeightsOf(config, op)) {
    if (spec.is_copy) continue;  // another op decides where it is
    const TensorOverride* entry = overrides.Find(spec.tensor);
    if (entry != nullptr) used->insert(entry);
    const model::GgufTensor* tensor = file.FindTensor(spec.tensor);
    const std::string device = entry == nullptr ? "" : entry->device;
    votes[device] += tensor == nullptr ? 0 : static_cast<int64_t>(tensor->bytes);
    if (!spec.is_vector) of_matrices.insert(device);
  }
  *split = of_matrices.size() > 1;
  return std::max_element(votes.begin(), votes.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

}  // namespace

void PlaceByOverrides(const model::ModelConfig& config, const model::GgufFile& file,
                      const TensorOverrides& overrides, const DeviceMap& device_map,
                      const std::vector<DeviceInfo>& devices, const StepShape& shape,
                      Placement* placement) {
  std::vector<DeviceInfo> rest;
  std::copy_if(devices.begin(), devices.end(), std::back_inserter(rest),
               std::mem_fn(&DeviceInfo::has_gpu_kernels));
  PlaceAutomatically(config, file, rest.empty() ? devices : rest, shape, &placement->modules);

  placement->diagnostics.insert(placement->diagnostics.end(), overrides.diagnostics.begin(),
                                overrides.diagnostics.end());
  DeviceAssigner assigner(config, file, devices, std::string(kFlag), placement);
  std::set<const TensorOverride*> used;
  std::map<std::string, std::vector<Op>> splits;
  for (ModulePlacement& module : placement->modules) {
    bool split = false;
    const std::string device = MostOf(config, file, overrides, module.op, &used, &split);
    if (split) splits[device].push_back(module.op);
    if (!device.empty()) assigner.Assign(device_map.Apply(device), &module);
  }
  assigner.Finish();
  for (const auto& [device, ops] : splits) {
    Warn("split-module",
         absl::StrCat("tensors of ", absl::StrJoin(CollapseModules(config, ops), ", "),
                      " are placed apart; each goes as a whole to ",
                      device.empty() ? "where its layer is" : device, ", which has most of it"),
         placement);
  }
  for (const TensorOverride& entry : overrides.entries) {
    if (used.count(&entry) > 0) continue;
    Warn("never-matches",
         absl::StrCat(Quoted(MakeScalar(entry.pattern)),
                      " matches no tensor that an earlier "
                      "pattern has left"),
         placement);
  }
}

}  // namespace dovetail::coordinator
