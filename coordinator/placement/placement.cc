#include "coordinator/placement/placement.h"

#include "base/check.h"
#include "coordinator/placement/auto_placement.h"
#include "coordinator/placement/ktransformers/place.h"
#include "coordinator/placement/override_place.h"
#include "coordinator/placement/rule_placement.h"
#include "model/memory_plan.h"

namespace dovetail::coordinator {
namespace {

std::vector<model::WeightSlot> SlotsOf(const model::ModelConfig& config,
                                       const model::GgufFile& file, const Op& op,
                                       PackedLayout layout) {
  absl::StatusOr<std::vector<model::WeightSlot>> slots =
      model::LayOutWeights(config, file, {op}, layout);
  DT_CHECK(slots.ok());  // a configuration is read from a file that has all tensors
  return *std::move(slots);
}

}  // namespace

void ModuleBytes::Add(const model::WeightSlot& slot) {
  packed += slot.bytes;
  if (slot.in_place) in_place += slot.stored_bytes;
  if (!slot.spec.is_copy) stored += slot.stored_bytes;
}

ModuleBytes BytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op,
                    PackedLayout layout) {
  ModuleBytes bytes;
  for (const model::WeightSlot& slot : SlotsOf(config, file, op, layout)) bytes.Add(slot);
  return bytes;
}

int64_t StoredBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op) {
  return BytesOf(config, file, op, PackedLayout::kRaw).stored;
}

std::vector<std::string> DevicesOf(const ModulePlacement& module) {
  if (module.members.empty()) {
    return module.device.empty() ? std::vector<std::string>{} : std::vector{module.device};
  }
  std::vector<std::string> devices;
  for (const Member& member : module.members) devices.push_back(member.worker);
  return devices;
}

std::optional<Op> OpOn(const ModulePlacement& module, const std::string& device) {
  const Segment alone = {module.device, {module.op}, module.members};
  const int member = MemberOf(alone, device);
  if (member < 0) return std::nullopt;
  return OpsOfMember(alone, member).front();
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
    placement.modules.push_back({op, model::ModuleName(op)});
  }
  if (rules != nullptr && rules->overrides != nullptr) {
    PlaceByOverrides(config, file, *rules->overrides, rules->device_map, devices, shape,
                     &placement);
  } else if (rules != nullptr && rules->ktransformers != nullptr) {
    ktransformers::PlaceByRuleFile(config, file, *rules->ktransformers, rules->device_map, devices,
                                   &placement);
  } else if (rules != nullptr) {
    PlaceByRules(config, file, *rules, devices, &placement);
  } else {
    PlaceAutomatically(config, file, devices, shape, &placement.modules);
  }
  return placement;
}

}  // namespace dovetail::coordinator
