// What a plan's GPU workers can stream of the experts of CPU workers (base/route.h). Pure
// functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_STREAMING_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_STREAMING_H_

#include "coordinator/placement/plan.h"
#include "coordinator/stream_choice.h"

namespace dovetail::coordinator {

// The ops that `worker` streams: none without buffers for it, or if it is no GPU's.
std::vector<Op> StreamedOpsOf(const Plan& plan, const DeviceInfo& worker);

// Of a whole step, one GPU worker after the other.
StreamCost StreamCostOf(const Plan& plan);

// Where the plan's shape has buffers: an error if they are too small for one expert's matrix, or if
// experts are not packed as a GPU reads them; a warning if there is nothing to stream.
void CheckStreaming(const model::ModelConfig& config, const model::GgufFile& file, Plan* plan);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_STREAMING_H_
