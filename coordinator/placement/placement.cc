#include "coordinator/placement/placement.h"

#include <algorithm>

#include "coordinator/placement/auto_split.h"
#include "coordinator/placement/rule_placement.h"

namespace dovetail::coordinator {
namespace {

void PlaceEvenly(const model::ModelConfig& config, const model::GgufFile& file,
                 const std::vector<DeviceInfo>& devices, std::vector<ModulePlacement>* modules) {
  std::vector<int64_t> layer_bytes(config.num_hidden_layers, 0);
  int64_t first_extra = 0;
  int64_t last_extra = 0;
  for (const ModulePlacement& module : *modules) {
    const int64_t bytes = StoredBytesOf(config, file, module.op);
    if (module.op.layer >= 0) {
      layer_bytes[module.op.layer] += bytes;
    } else {
      (module.op.kind == OpKind::kEmbedding ? first_extra : last_extra) += bytes;
    }
  }
  const std::vector<int> begins =
      SplitEvenly(layer_bytes, static_cast<int>(devices.size()), first_extra, last_extra);
  for (ModulePlacement& module : *modules) {
    size_t device = module.op.kind == OpKind::kEmbedding ? 0 : devices.size() - 1;
    if (module.op.layer >= 0) {
      device = std::upper_bound(begins.begin(), begins.end(), module.op.layer) - begins.begin() - 1;
    }
    module.device = devices[device].name;
  }
}

}  // namespace

int64_t StoredBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op) {
  int64_t bytes = 0;
  for (const model::WeightSpec& spec : model::WeightsOf(config, op)) {
    const model::GgufTensor* tensor = file.FindTensor(spec.tensor);
    if (tensor != nullptr) bytes += tensor->bytes;
  }
  return bytes;
}

absl::StatusOr<std::vector<ModulePlacement>> Place(const model::ModelConfig& config,
                                                   const model::GgufFile& file,
                                                   const RuleSet* rules,
                                                   const std::vector<DeviceInfo>& devices) {
  if (devices.empty()) return absl::InvalidArgumentError("there is no worker to place modules on");
  std::vector<ModulePlacement> modules;
  for (const Op& op : model::OpsOf(config)) {
    modules.push_back({op, model::ModuleName(op), "", "", std::nullopt});
  }
  if (rules != nullptr) {
    const absl::Status status = PlaceByRules(config, *rules, devices, &modules);
    if (!status.ok()) return status;
  } else {
    PlaceEvenly(config, file, devices, &modules);
  }
  return modules;
}

}  // namespace dovetail::coordinator
