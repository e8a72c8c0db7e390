// PlaceByRuleFile: a KTransformers rule file, applied to the ops of a model.
//
// The modules of an op may have been given different devices (a projection's rule, a norm's
// default); the op goes to the device of most bytes. `cuda:k` is the k-th GPU worker; `cpu` is the
// CPU worker, or all CPU workers, which then share the layers in order. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_PLACE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_PLACE_H_

#include <vector>

#include "coordinator/placement/device_info.h"
#include "coordinator/placement/device_map.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/placement.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::coordinator::ktransformers {

// Fills in device, op and rule of every module, and reports all that Lint finds and: split-module
// (an op whose matrices have different devices), unknown-device (more GPUs than there are, no CPU
// worker), unsupported-device (npu, xpu).
void PlaceByRuleFile(const model::ModelConfig& config, const model::GgufFile& file,
                     const RuleFile& rules, const DeviceMap& device_map,
                     const std::vector<DeviceInfo>& devices, Placement* placement);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_PLACE_H_
