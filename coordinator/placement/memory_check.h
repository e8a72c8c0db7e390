// Does a plan fit its workers' memory? Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_MEMORY_CHECK_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_MEMORY_CHECK_H_

#include "absl/status/status.h"
#include "coordinator/placement/plan.h"

namespace dovetail::coordinator {

// What a GPU worker's process takes of its GPU before any model: the driver's context and its
// kernels' code.
inline constexpr int64_t kGpuRuntimeBytes = int64_t{512} << 20;
// The stacks of a block's threads, which the shim has for each.
inline constexpr int64_t kSimtRuntimeBytes = int64_t{10} << 20;

// Fills in every worker's memory from the plan's modules, route and shape. A CPU worker has one
// ring for each other endpoint from which the route comes to it; a GPU worker has places for rows
// at its ends of links.
void PlanMemory(const model::ModelConfig& config, Plan* plan);

// The shape alone has changed since PlanMemory.
void PlanMemoryOfShape(const model::ModelConfig& config, Plan* plan);

// Every worker fits its budget, and those that share a memory fit it together.
bool Fits(const Plan& plan);

// ResourceExhausted unless the plan fits: a table with the figures, and the nearest settings that
// would fit.
absl::Status CheckMemory(const model::ModelConfig& config, const model::GgufFile& file,
                         const Plan& plan);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_MEMORY_CHECK_H_
