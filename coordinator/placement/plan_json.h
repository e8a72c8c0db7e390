// PlanJson: a plan in the form that scripts read; its keys are a stable contract (docs/plan.md).
// Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLAN_JSON_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLAN_JSON_H_

#include <string>
#include <vector>

#include "coordinator/placement/plan.h"
#include "coordinator/placement/speed.h"
#include "coordinator/placement/suggestions.h"

namespace dovetail::coordinator {

// A plan whose diagnostics have errors gives empty lists, null for the speed and the diagnostics.
std::string PlanJson(const model::ModelConfig& config, const Plan& plan, const PlanSpeed& speed,
                     const std::vector<Suggestion>& suggestions);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLAN_JSON_H_
