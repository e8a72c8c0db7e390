// Placement: which device each module runs on, and which rule decided that; by rules, or
// automatically. What a placement costs, and whether it fits, is the plan's affair (plan.h).
//
// Pure functions of the model's configuration, the rules and the devices' descriptions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLACEMENT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLACEMENT_H_

#include <optional>
#include <string>
#include <vector>

#include "base/route.h"
#include "base/step_shape.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/diagnostic.h"
#include "coordinator/placement/rule_ref.h"
#include "coordinator/placement/rule_set.h"
#include "model/gguf/gguf_file.h"
#include "model/memory_plan.h"
#include "model/model_config.h"

namespace dovetail::coordinator {

struct ModulePlacement {
  Op op;
  std::string module;           // "model.layers.3.mlp"
  std::string device;           // "cpu:0"
  std::vector<Member> members;  // devices that share its rows, `device` first; none: it is alone
  std::string op_name;          // what the rule asked to compute it with; empty: the device's best
  std::optional<RuleRef> rule;  // none: decided without a rule
};

struct Placement {
  std::vector<ModulePlacement> modules;  // all ops of the model, in execution order
  // What is to be said about the rules, for this model and these devices. With an error among it,
  // devices may be missing.
  std::vector<Diagnostic> diagnostics;
};

// The devices that compute the module; what is not placed has none.
std::vector<std::string> DevicesOf(const ModulePlacement& module);
// The op as `device` computes it, the whole or its rows; nullopt: it has nothing to do with it.
std::optional<Op> OpOn(const ModulePlacement& module, const std::string& device);

// By rules, or without them automatically (auto_placement.h).
Placement Place(const model::ModelConfig& config, const model::GgufFile& file, const RuleSet* rules,
                const std::vector<DeviceInfo>& devices, const StepShape& shape);

// What weights take in the file, and in a worker's memory; what of them it reads in place, from the
// file's pages, which are not its memory.
struct ModuleBytes {
  int64_t stored = 0;
  int64_t packed = 0;
  int64_t in_place = 0;

  void Add(const model::WeightSlot& slot);
};
ModuleBytes BytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op,
                    PackedLayout layout);
int64_t StoredBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLACEMENT_H_
