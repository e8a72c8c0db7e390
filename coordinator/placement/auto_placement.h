// PlaceAutomatically: a placement without rules, from what the devices are: the most speed within
// their budgets. Pure function.
//
// Devices of one kind hold consecutive runs of whole layers, and take equally long, of decoding and
// of prompts, as far as both can be had: prompts hardly need the head. Where there are
// GPUs and CPU workers, what every token reads in full (attention with its KV cache, dense layers,
// routers, shared experts, the head) goes to the GPUs; experts, of which a token reads a few, go to
// the CPU workers, but for those that find room beside the rest of their layer. If not even that
// fits on the GPUs, the first layers lie whole on the CPU workers: as few as can be.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_AUTO_PLACEMENT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_AUTO_PLACEMENT_H_

#include <vector>

#include "base/step_shape.h"
#include "coordinator/placement/placement.h"

namespace dovetail::coordinator {

// Fills in device and op of every module. Where nothing fits, the most even placement of all.
void PlaceAutomatically(const model::ModelConfig& config, const model::GgufFile& file,
                        const std::vector<DeviceInfo>& devices, const StepShape& shape,
                        std::vector<ModulePlacement>* modules);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_AUTO_PLACEMENT_H_
