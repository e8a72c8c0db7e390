// The rules that a configuration names: a file of either form, or --override-tensor; with --map.
#ifndef DOVETAIL_COORDINATOR_CONFIGURED_RULES_H_
#define DOVETAIL_COORDINATOR_CONFIGURED_RULES_H_

#include <optional>

#include "absl/status/statusor.h"
#include "coordinator/config.h"
#include "coordinator/placement/rule_set.h"

namespace dovetail::coordinator {

// Nothing where none are configured. Errors as LoadRules and RulesOfOverrides.
absl::StatusOr<std::optional<RuleSet>> LoadConfiguredRules(const ModelSettings& settings);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CONFIGURED_RULES_H_
