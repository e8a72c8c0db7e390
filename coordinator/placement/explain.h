// Why a module is where it is: the rule that placed it, and those that match it too but came too
// late. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_EXPLAIN_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_EXPLAIN_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/placement/plan.h"
#include "coordinator/placement/rule_set.h"

namespace dovetail::coordinator {

struct ModuleExplanation {
  std::string module;
  std::string worker;                 // or those that share its rows: "cpu:0 + cpu:1 by rows 1:1"
  std::string rule;                   // "file:line:col", or "auto"
  std::vector<std::string> shadowed;  // later rules that match it as well
};

// The modules whose names begin with `name` at a border of names ("model.layers.1" is not the
// beginning of "model.layers.12"); all for "". `rules`: those that the plan was made with; null
// without.
std::vector<ModuleExplanation> ExplainPlan(const Plan& plan, const RuleSet* rules,
                                           absl::string_view name);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_EXPLAIN_H_
