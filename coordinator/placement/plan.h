// Plan: which worker owns which module, why, and what that costs in bytes; computed before anything
// loads.
//
// Pure functions of model headers, rules and the workers' descriptions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/packed_layout.h"
#include "base/route.h"
#include "base/step_shape.h"
#include "coordinator/placement/rule_set.h"
#include "model/gguf/gguf_file.h"
#include "model/memory_plan.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

// A device that modules can be placed on, as its worker registered it.
struct DeviceInfo {
  std::string name;          // "cpu:0"
  int64_t memory_bytes = 0;  // budget: what is free, or what was configured
  int num_threads = 1;
  PackedLayout layout = PackedLayout::kP16;
  std::vector<WeightType> weight_types;  // that its kernels compute with
};

struct PlacedModule {
  Op op;
  std::string module;  // "model.layers.3.mlp"
  std::string worker;
  std::string rule;  // "file:line:col" of the deciding rule, or "auto"
  int64_t stored_bytes = 0;
};

struct PlacedWorker {
  DeviceInfo device;
  std::vector<Op> ops;
  model::WorkerMemory memory;
};

struct Plan {
  std::vector<PlacedModule> modules;  // in execution order
  std::vector<PlacedWorker> workers;  // in the order of `devices`; a worker without ops is left out
  Route route;
  StepShape shape;
};

// Errors, all at once: modules that no rule places, rules that match nothing or name an unknown
// device, weight types a device cannot compute (InvalidArgument), workers whose bytes exceed their
// budget (ResourceExhausted, a table with the figures and the largest context that would fit).
absl::StatusOr<Plan> MakePlan(const model::ModelConfig& config, const model::GgufFile& file,
                              const RuleSet* rules, const std::vector<DeviceInfo>& devices,
                              const StepShape& shape);

// A table for people: workers, ranges of layers, bytes.
std::string DescribePlan(const Plan& plan, const model::ModelConfig& config);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_
