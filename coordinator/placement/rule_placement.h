// PlaceByRules: our own rules, applied to the modules of a model. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_PLACEMENT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_PLACEMENT_H_

#include <vector>

#include "absl/status/status.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/placement.h"
#include "coordinator/placement/rule_set.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

// Fills in device and rule of every module. InvalidArgument, all at once: modules that no rule
// places, rules that match nothing, layers that the model does not have, unknown devices.
absl::Status PlaceByRules(const model::ModelConfig& config, const RuleSet& rules,
                          const std::vector<DeviceInfo>& devices,
                          std::vector<ModulePlacement>* modules);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_PLACEMENT_H_
