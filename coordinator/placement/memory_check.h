// Does a placement fit its workers' memory, and if not, what would? Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_MEMORY_CHECK_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_MEMORY_CHECK_H_

#include <vector>

#include "absl/status/status.h"
#include "coordinator/placement/plan.h"

namespace dovetail::coordinator {

// Fills in the workers' memory for their ops and this shape. A worker has one ring for each other
// endpoint from which the route comes to it.
absl::Status PlanMemory(const model::ModelConfig& config, const model::GgufFile& file,
                        const Route& route, const StepShape& shape,
                        std::vector<PlacedWorker>* workers);

// ResourceExhausted unless every worker's bytes fit its budget: a table with the figures, and the
// largest KV cache and context that would fit.
absl::Status CheckMemory(const model::ModelConfig& config, const model::GgufFile& file,
                         const Route& route, const StepShape& shape,
                         const std::vector<PlacedWorker>& workers);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_MEMORY_CHECK_H_
