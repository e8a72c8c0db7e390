#include "coordinator/placement/placement.h"

#include "base/check.h"
#include "coordinator/placement/auto_placement.h"
#include "coordinator/placement/rule_placement.h"
#include "model/memory_plan.h"

namespace dovetail::coordinator {

int64_t StoredBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op) {
  int64_t bytes = 0;
  for (const model::WeightSpec& spec : model::WeightsOf(config, op)) {
    const model::GgufTensor* tensor = file.FindTensor(spec.tensor);
    if (tensor == nullptr || spec.is_copy) continue;
    bytes += op.kind == OpKind::kExperts
                 ? tensor->bytes / config.experts.count * (op.expert_end - op.expert_begin)
                 : tensor->bytes;
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
                const std::vector<DeviceInfo>& devices, const StepShape& shape) {
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
  if (rules != nullptr) {
    PlaceByRules(config, file, *rules, devices, &placement);
  } else {
    PlaceAutomatically(config, file, devices, shape, &placement.modules);
  }
  return placement;
}

}  // namespace dovetail::coordinator
