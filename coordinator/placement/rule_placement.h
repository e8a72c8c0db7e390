// PlaceByRules: our own rules, applied to the modules of a model. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_PLACEMENT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_PLACEMENT_H_

#include <vector>

#include "coordinator/placement/device_info.h"
#include "coordinator/placement/placement.h"
#include "coordinator/placement/rule_set.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

// Makes the list of modules, with experts in ranges where rules divide them, gives each its device,
// op and rule, and reports (docs/rules.md has the list): errors
// for unknown devices, layers and experts that the model does not have, and modules that no rule
// places; warnings for rules that match nothing, are shadowed or overlap, for ops that a device
// cannot run, and for an output matrix away from the last norm.
void PlaceByRules(const model::ModelConfig& config, const model::GgufFile& file,
                  const RuleSet& rules, const std::vector<DeviceInfo>& devices,
                  Placement* placement);

// Memory (not more than there is) and reserve as the file says, for the devices that it names. The
// last entry that means a device counts. A warning for names that are none of them.
void ApplyBudgets(const RuleSet& rules, std::vector<DeviceInfo>* devices,
                  std::vector<Diagnostic>* diagnostics);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_PLACEMENT_H_
