// PlaceByOverrides: --override-tensor, applied to the ops of a model. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_OVERRIDE_PLACE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_OVERRIDE_PLACE_H_

#include <vector>

#include "base/step_shape.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/device_map.h"
#include "coordinator/placement/override_tensor.h"
#include "coordinator/placement/placement.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

// What no pattern matches is spread over the GPUs, layer by layer (over all devices where there is
// no GPU), as llama.cpp does with all layers offloaded. An op goes where most bytes of its tensors
// go. Diagnostics: never-matches (a pattern), split-module (an op whose tensors lie apart), and
// DeviceAssigner's.
void PlaceByOverrides(const model::ModelConfig& config, const model::GgufFile& file,
                      const TensorOverrides& overrides, const DeviceMap& device_map,
                      const std::vector<DeviceInfo>& devices, const StepShape& shape,
                      Placement* placement);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_OVERRIDE_PLACE_H_
