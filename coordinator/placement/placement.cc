#include "coordinator/placement/placement.h"

#include <algorithm>

#include "base/check.h"
#include "coordinator/placement/auto_split.h"
#include "coordinator/placement/ktransformers/place.h"
#include "coordinator/placement/op_choice.h"
#include "coordinator/placement/override_place.h"
#include "coordinator/placement/rule_placement.h"
#include "model/memory_plan.h"

namespace dovetail::coordinator {
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
    module.op_name = OpName(module.op, "", devices[device]);
  }
}

int64_t StoredBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op) {
  int64_t bytes = 0;
  for (const model::WeightSpec& spec : model::WeightsOf(config, op)) {
    const model::GgufTensor* tensor = file.FindTensor(spec.tensor);
    if (tensor != nullptr) bytes += tensor->bytes;
  }
  return bytes;
}

int64_t PackedBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op,
                      PackedLayout layout) {
  const absl::StatusOr<std::vector<model::WeightSlot>> slots =
      model::LayOutWeights(config, file, {op}, layout);
  DT_CHECK(slots.ok());  // a configuration is read from a file that has all tensors
  int64_t bytes = 0;
  for (const model::WeightSlot& slot : *slots) bytes += slot.bytes;
  return bytes;
}

Placement Place(const model::ModelConfig& config, const model::GgufFile& file, const RuleSet* rules,
                const std::vector<DeviceInfo>& devices) {
  Placement placement;
  if (devices.empty()) {
    placement.diagnostics.push_back({.code = "no-device",
                                     .severity = Severity::kError,
                                     .message = "there is no worker to place modules on"});
    return placement;
  }
  for (const Op& op : model::OpsOf(config)) {
    placement.modules.push_back({op, model::ModuleName(op), "", "", std::nullopt});
  }
  if (rules != nullptr && rules->overrides != nullptr) {
    PlaceByOverrides(config, file, *rules->overrides, rules->device_map, devices, &placement);
  } else if (rules != nullptr && rules->ktransformers != nullptr) {
    ktransformers::PlaceByRuleFile(config, file, *rules->ktransformers, rules->device_map, devices,
                                   &placement);
  } else if (rules != nullptr) {
    PlaceByRules(config, file, *rules, devices, &placement);
  } else {
    PlaceEvenly(config, file, devices, &placement.modules);
  }
  return placement;
}

}  // namespace dovetail::coordinator
