// PlanText: a plan as `dovetail plan` shows it to a person. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLAN_TEXT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLAN_TEXT_H_

#include <string>
#include <vector>

#include "base/route.h"
#include "coordinator/placement/plan.h"
#include "coordinator/placement/speed.h"
#include "coordinator/placement/suggestions.h"

namespace dovetail::coordinator {

std::string PlanText(const model::ModelConfig& config, const Plan& plan, const PlanSpeed& speed,
                     const std::vector<Suggestion>& suggestions);

// "coordinator -> cpu:0 -> (cuda:0 -> cpu:0) x 58 -> coordinator".
std::string RouteText(const Route& route);

// Why modules are where they are: the one of this name, or all below it ("model.layers.3").
// Empty where there is none.
std::string ExplainText(const model::ModelConfig& config, const Plan& plan,
                        const std::string& name);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLAN_TEXT_H_
