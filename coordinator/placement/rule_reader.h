// ReadRule: one rule of our own form, from YAML. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_READER_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_READER_H_

#include "base/yaml_reader.h"
#include "coordinator/placement/rule_ref.h"
#include "coordinator/placement/rule_set.h"

namespace dovetail::coordinator {

// With mistakes the rule is not usable.
Rule ReadRule(const YamlNode& node, RuleRef ref, Mistakes* mistakes);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_READER_H_
