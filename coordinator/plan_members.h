// PlanMembers: the placement plan for the workers as they registered: what each may use of its
// machine's memory, and whether those on one NUMA node fit it together.
#ifndef DOVETAIL_COORDINATOR_PLAN_MEMBERS_H_
#define DOVETAIL_COORDINATOR_PLAN_MEMBERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/cluster_member.h"
#include "coordinator/placement/plan.h"
#include "transport/run_dir.h"

namespace dovetail::coordinator {

struct PlanInputs {
  const model::ModelConfig* config = nullptr;
  const model::GgufFile* file = nullptr;
  const RuleSet* rules = nullptr;  // null: layers are split evenly
  const transport::RunDir* run_dir = nullptr;
  std::string model;  // its name, "" where it is the only one: of its files in the run directory
  std::map<std::string, int64_t> memory;  // configured budgets by worker
  StepShape shape;
};

// What a worker, by its full name, already holds in the run directory; its own figure of available
// memory includes it.
int64_t SegmentBytes(const transport::RunDir& run_dir, const std::string& worker);

// Place and MakePlan with each worker's budget: the configured one, or what the worker found
// available. Workers without a configured budget that share a node share its memory:
// ResourceExhausted names them and both figures where they need more together than there is.
absl::StatusOr<Plan> PlanMembers(const PlanInputs& inputs,
                                 const std::vector<ClusterMember>& members);

// The same mistakes in rules that PlanMembers finds, before any worker has registered: devices with
// every weight type and no lack of memory.
absl::Status CheckRules(const PlanInputs& inputs, const std::vector<std::string>& workers);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLAN_MEMBERS_H_
