#include "coordinator/configured_rules.h"

#include <utility>

#include "base/status_macros.h"
#include "coordinator/placement/device_map.h"

namespace dovetail::coordinator {

absl::StatusOr<std::optional<RuleSet>> LoadConfiguredRules(const ServeConfig& config) {
  if (config.rules.empty() && config.override_tensor.empty()) return std::nullopt;
  DT_ASSIGN_OR_RETURN(const DeviceMap map, DeviceMap::Parse(config.map));
  if (config.rules.empty()) {
    DT_ASSIGN_OR_RETURN(RuleSet rules, RulesOfOverrides(config.override_tensor, map));
    return std::optional<RuleSet>(std::move(rules));
  }
  DT_ASSIGN_OR_RETURN(RuleSet rules, LoadRules(config.rules, map));
  return std::optional<RuleSet>(std::move(rules));
}

}  // namespace dovetail::coordinator
