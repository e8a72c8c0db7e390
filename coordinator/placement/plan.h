// Plan: which worker owns which module, why, and what that costs in bytes and time; computed before
// anything loads.
//
// Pure functions of model headers, a placement and the devices' descriptions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/route.h"
#include "base/step_shape.h"
#include "coordinator/placement/diagnostic.h"
#include "coordinator/placement/placement.h"
#include "model/gguf/gguf_file.h"
#include "model/memory_plan.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

struct PlacedModule : ModulePlacement {
  int64_t stored_bytes = 0;    // in the file
  int64_t packed_bytes = 0;    // in its worker's memory, or in those of all its members
  int64_t in_place_bytes = 0;  // that its worker, or all its members, read in place
  std::vector<ModuleBytes> member_bytes = {};  // what each member has of them
};

// What `device` has of the module.
ModuleBytes BytesOn(const PlacedModule& module, const std::string& device);
// The module's device, or "cpu:0 + cpu:1 by rows 2:1".
std::string DeviceText(const ModulePlacement& module);

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
  std::vector<Diagnostic> diagnostics;  // of the placement and of the plan, sorted
};

// A placement with an error among its diagnostics, or with weight types that a device cannot
// compute with, gives a plan of which the diagnostics alone are of use: see HasErrors. Whether the
// plan fits is another question (memory_check.h).
Plan MakePlan(const model::ModelConfig& config, const model::GgufFile& file, Placement placement,
              const std::vector<DeviceInfo>& devices, const StepShape& shape);

// The whole way: the file's budgets, Place, MakePlan.
Plan PlanByRules(const model::ModelConfig& config, const model::GgufFile& file,
                 const RuleSet* rules, std::vector<DeviceInfo> devices, const StepShape& shape);

// Fills in what the modules take on the plan's workers, each with the layout that it has: what
// several modules of a worker need is with the first of them, the rows of an embedding with a head
// that has them too.
void MeasureWeights(const model::ModelConfig& config, const model::GgufFile& file, Plan* plan);

// What crosses from worker to worker for `rows` rows of one step.
int64_t HopBytes(const model::ModelConfig& config, int64_t rows);

// A table for people: workers, ranges of layers, bytes.
std::string DescribePlan(const Plan& plan, const model::ModelConfig& config);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLAN_H_
