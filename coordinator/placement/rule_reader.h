// ReadRule: one rule of our own form, from YAML. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_READER_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_READER_H_

#include "absl/strings/string_view.h"
#include "base/yaml_reader.h"
#include "coordinator/placement/rule_ref.h"
#include "coordinator/placement/rule_set.h"

namespace dovetail::coordinator {

// With mistakes the rule is not usable.
Rule ReadRule(const YamlNode& node, RuleRef ref, Mistakes* mistakes);

// `5`, `0-14`, or a list of these.
void ReadRanges(const YamlNode& node, absl::string_view key, Ranges* ranges, Mistakes* mistakes);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_READER_H_
