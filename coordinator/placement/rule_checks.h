// What is probably wrong with the rules of a file, seen against the modules of a model. Pure
// functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_CHECKS_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_CHECKS_H_

#include <vector>

#include "absl/types/span.h"
#include "base/route.h"
#include "coordinator/placement/diagnostic.h"
#include "coordinator/placement/rule_set.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

// For each op the index of the first rule that matches it; -1: none does.
std::vector<int> DecidingRules(const RuleSet& rules, absl::Span<const Op> ops);

// Codes: no-such-layer, no-such-expert, never-matches, shadowed-rule, layer-overlap, unplaced.
void CheckRules(const model::ModelConfig& config, const RuleSet& rules, absl::Span<const Op> ops,
                absl::Span<const int> deciders, std::vector<Diagnostic>* diagnostics);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_CHECKS_H_
