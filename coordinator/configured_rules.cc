#include "coordinator/configured_rules.h"

#include <utility>

#include "base/status_macros.h"
#include "coordinator/placement/device_map.h"

namespace dovetail::coordinator {

absl::StatusOr<std::optional<RuleSet>> LoadConfiguredRules(const ModelSettings& settings) {
  if (settings.rules.empty() && settings.override_tensor.empty()) return std::nullopt;
  DT_ASSIGN_OR_RETURN(const DeviceMap map, DeviceMap::Parse(settings.map));
  if (settings.rules.empty()) {
    DT_ASSIGN_OR_RETURN(RuleSet rules, RulesOfOverrides(settings.override_tensor, map));
    return std::optional<RuleSet>(std::move(rules));
  }
  DT_ASSIGN_OR_RETURN(RuleSet rules, LoadRules(settings.rules, map));
  return std::optional<RuleSet>(std::move(rules));
}

}  // namespace dovetail::coordinator
