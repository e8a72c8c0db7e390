// Plan: which worker owns which module, why, and what that costs in bytes; computed before anything
// loads.
//
// Pure functions of model headers, a placement and the devices' descriptions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/route.h"
#include "base/step_shape.h"
#include "coordinator/placement/placement.h"
#include "model/gguf/gguf_file.h"
#include "model/memory_plan.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

struct PlacedModule : ModulePlacement {
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

// Errors, all at once: weight types a device cannot compute (InvalidArgument), workers whose bytes
// exceed their budget (ResourceExhausted, a table with the figures and the largest context that
// would fit).
absl::StatusOr<Plan> MakePlan(const model::ModelConfig& config, const model::GgufFile& file,
                              std::vector<ModulePlacement> placements,
                              const std::vector<DeviceInfo>& devices, const StepShape& shape);

// A table for people: workers, ranges of layers, bytes.
std::string DescribePlan(const Plan& plan, const model::ModelConfig& config);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_
