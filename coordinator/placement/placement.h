// Placement: which device each module runs on, and which rule decided that; by rules, or even over
// the devices. What a placement costs, and whether it fits, is the plan's affair (plan.h).
//
// Pure functions of the model's configuration, the rules and the devices' descriptions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLACEMENT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLACEMENT_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/route.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/rule_ref.h"
#include "coordinator/placement/rule_set.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

struct ModulePlacement {
  Op op;
  std::string module;           // "model.layers.3.mlp"
  std::string device;           // "cpu:0"
  std::string op_name;          // what the rule asked to compute it with; empty: the device's best
  std::optional<RuleRef> rule;  // none: decided without a rule
};

// One entry for each of OpsOf(config), in that order. Without rules layers are cut into consecutive
// runs, as even by bytes as can be. InvalidArgument lists everything that is wrong with the rules
// for this model and these devices.
absl::StatusOr<std::vector<ModulePlacement>> Place(const model::ModelConfig& config,
                                                   const model::GgufFile& file,
                                                   const RuleSet* rules,
                                                   const std::vector<DeviceInfo>& devices);

// What an op's tensors take in the file.
int64_t StoredBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLACEMENT_H_
