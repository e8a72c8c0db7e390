#include "coordinator/placement/plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "coordinator/placement/auto_split.h"
#include "coordinator/placement/expert_parts.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

// What is being planned, and everything found wrong with it.
struct Draft {
  const model::ModelConfig& config;
  const model::GgufFile& file;
  const std::vector<DeviceInfo>& devices;
  std::vector<PlacedModule> modules;
  std::vector<std::string> mistakes;

  std::string DeviceNames() const {
    return absl::StrJoin(devices, ", ", [](std::string* out, const DeviceInfo& device) {
      absl::StrAppend(out, device.name);
    });
  }
  const DeviceInfo* FindDevice(const std::string& name) const {
    for (const DeviceInfo& device : devices) {
      if (device.name == name) return &device;
    }
    return nullptr;
  }
};

int64_t StoredBytesOf(const model::ModelConfig& config, const model::GgufFile& file, const Op& op) {
  int64_t bytes = 0;
  for (const model::WeightSpec& spec : model::WeightsOf(config, op)) {
    const model::GgufTensor* tensor = file.FindTensor(spec.tensor);
    if (tensor == nullptr || spec.is_copy) continue;
    bytes +=
        spec.experts == 0 ? tensor->bytes : tensor->bytes / config.experts.count * spec.experts;
  }
  return bytes;
}

void PlaceEvenly(Draft* draft) {
  const int num_layers = draft->config.num_hidden_layers;
  std::vector<int64_t> layer_bytes(num_layers, 0);
  int64_t first_extra = 0;
  int64_t last_extra = 0;
  for (const PlacedModule& module : draft->modules) {
    if (module.op.layer >= 0) {
      layer_bytes[module.op.layer] += module.stored_bytes;
    } else {
      (module.op.kind == OpKind::kEmbedding ? first_extra : last_extra) += module.stored_bytes;
    }
  }
  const std::vector<int> begins =
      SplitEvenly(layer_bytes, static_cast<int>(draft->devices.size()), first_extra, last_extra);
  for (PlacedModule& module : draft->modules) {
    size_t device = module.op.kind == OpKind::kEmbedding ? 0 : draft->devices.size() - 1;
    if (module.op.layer >= 0) {
      device = std::upper_bound(begins.begin(), begins.end(), module.op.layer) - begins.begin() - 1;
    }
    module.worker = draft->devices[device].name;
    module.rule = "auto";
  }
}

// False when the rule names layers that the model does not have.
bool CheckLayers(const Rule& rule, Draft* draft) {
  const int num_layers = draft->config.num_hidden_layers;
  bool fits = true;
  for (const auto& [first, last] : rule.layers) {
    if (last < num_layers) continue;
    fits = false;
    draft->mistakes.push_back(absl::StrCat(rule.layers_location, ": the rule names layer ", last,
                                           ", but the model has ", num_layers, " layers (0-",
                                           num_layers - 1, ")"));
  }
  return fits;
}

// False when the rule names experts that the model does not have.
bool CheckExperts(const Rule& rule, Draft* draft) {
  const int count = draft->config.experts.count;
  if (rule.experts.empty()) return true;
  if (count == 0) {
    draft->mistakes.push_back(
        absl::StrCat(rule.location, ": the rule places experts, but the model is dense"));
    return false;
  }
  for (const auto& [first, last] : rule.experts) {
    if (last < count) continue;
    draft->mistakes.push_back(absl::StrCat(rule.location, ": the rule names expert ", last,
                                           ", but the model's layers have ", count, " (0-",
                                           count - 1, ")"));
    return false;
  }
  return true;
}

void CheckRule(const Rule& rule, Draft* draft) {
  if (draft->FindDevice(rule.place) == nullptr) {
    draft->mistakes.push_back(absl::StrCat(rule.place_location, ": unknown worker `", rule.place,
                                           "`; known: ", draft->DeviceNames()));
  }
  if (!CheckLayers(rule, draft)) return;
  if (!CheckExperts(rule, draft)) return;
  const bool matches = std::any_of(draft->modules.begin(), draft->modules.end(),
                                   [&](const PlacedModule& m) { return rule.Matches(m.op); });
  if (!matches) {
    draft->mistakes.push_back(
        absl::StrCat(rule.location, ": the rule matches no module of the model"));
  }
}

// The first rule that matches the op; past the last one if none does.
size_t DecidingRule(const RuleSet& rules, const Op& op) {
  return std::find_if(rules.rules.begin(), rules.rules.end(),
                      [&](const Rule& rule) { return rule.Matches(op); }) -
         rules.rules.begin();
}

std::vector<Op> ExpertsDividedByRules(const RuleSet& rules, absl::Span<const Op> ops) {
  return DivideExperts(ops,
                       [&](const Op& op) { return static_cast<int>(DecidingRule(rules, op)); });
}

void PlaceByRules(const RuleSet& rules, Draft* draft) {
  for (const Rule& rule : rules.rules) CheckRule(rule, draft);
  std::vector<Op> ownerless;
  const PlacedModule* attention = nullptr;  // of the layer
  for (PlacedModule& module : draft->modules) {
    if (module.op.kind == OpKind::kAttention) attention = &module;
    const size_t rule = DecidingRule(rules, module.op);
    if (rule < rules.rules.size()) {
      module.worker = rules.rules[rule].place;
      module.rule = rules.rules[rule].location;
    } else if (module.op.kind == OpKind::kRouter) {
      // It needs what attention leaves, and next to nothing else.
      module.worker = attention->worker;
      module.rule = attention->rule;
    } else {
      ownerless.push_back(module.op);
    }
  }
  if (ownerless.empty()) return;
  draft->mistakes.push_back(
      absl::StrCat(rules.file, ": no rule places ",
                   absl::StrJoin(CollapseModules(draft->config, ownerless), ", ")));
}

void OrderModules(std::vector<PlacedModule>* modules) {
  std::vector<Op> ops;
  std::vector<std::string> workers;
  for (const PlacedModule& module : *modules) {
    ops.push_back(module.op);
    workers.push_back(module.worker);
  }
  std::vector<PlacedModule> ordered;
  for (const size_t i : OrderForFewHops(ops, workers)) ordered.push_back(std::move((*modules)[i]));
  *modules = std::move(ordered);
}

// Norm vectors are kept as f32 whatever their type; only matrices need a kernel.
void CheckWeightTypes(Draft* draft) {
  constexpr size_t kMostNamed = 3;
  std::map<std::pair<std::string, WeightType>, std::vector<std::string>> refused;
  for (const PlacedModule& module : draft->modules) {
    const DeviceInfo* device = draft->FindDevice(module.worker);
    if (device == nullptr) continue;
    for (const model::WeightSpec& spec : model::WeightsOf(draft->config, module.op)) {
      const model::GgufTensor* tensor = draft->file.FindTensor(spec.tensor);
      if (tensor == nullptr || spec.is_vector ||
          std::count(device->weight_types.begin(), device->weight_types.end(), tensor->type) > 0) {
        continue;
      }
      refused[{device->name, tensor->type}].push_back(spec.tensor);
    }
  }
  for (auto& [key, tensors] : refused) {
    const size_t more = tensors.size() - std::min(tensors.size(), kMostNamed);
    tensors.resize(tensors.size() - more);
    draft->mistakes.push_back(absl::StrCat(key.first, " cannot compute with ",
                                           InfoOf(key.second).name,
                                           " weights: ", absl::StrJoin(tensors, ", "),
                                           more > 0 ? absl::StrCat(" and ", more, " more") : ""));
  }
}

Route CompileRoute(const std::vector<PlacedModule>& modules) {
  Route route;
  for (const PlacedModule& module : modules) {
    if (route.empty() || route.back().worker != module.worker) route.push_back({module.worker, {}});
    route.back().ops.push_back(module.op);
  }
  return route;
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const model::ModelConfig& config, const model::GgufFile& file,
                              const RuleSet* rules, const std::vector<DeviceInfo>& devices,
                              const StepShape& shape) {
  if (devices.empty()) return absl::InvalidArgumentError("there is no worker to place modules on");
  Draft draft{config, file, devices, {}, {}};
  std::vector<Op> ops = model::OpsOf(config);
  if (rules != nullptr) ops = ExpertsDividedByRules(*rules, ops);
  for (const Op& op : ops) {
    draft.modules.push_back({op, model::ModuleName(op), "", "", StoredBytesOf(config, file, op)});
  }
  if (rules != nullptr) {
    PlaceByRules(*rules, &draft);
  } else {
    PlaceEvenly(&draft);
  }
  CheckWeightTypes(&draft);
  if (!draft.mistakes.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(draft.mistakes, "\n"));
  }

  Plan plan;
  OrderModules(&draft.modules);
  plan.modules = std::move(draft.modules);
  plan.route = CompileRoute(plan.modules);
  plan.shape = shape;
  for (const DeviceInfo& device : devices) {
    PlacedWorker worker{device, {}, {}};
    for (const PlacedModule& module : plan.modules) {
      if (module.worker == device.name) worker.ops.push_back(module.op);
    }
    if (!worker.ops.empty()) plan.workers.push_back(std::move(worker));
  }
  DT_RETURN_IF_ERROR(PlanMemory(config, file, plan.route, shape, &plan.workers));
  DT_RETURN_IF_ERROR(CheckMemory(config, file, plan.route, shape, plan.workers));
  return plan;
}

std::string DescribePlan(const Plan& plan, const model::ModelConfig& config) {
  std::string places;
  for (const PlacedWorker& worker : plan.workers) {
    absl::StrAppend(&places, "  ", worker.device.name, ": ", DescribeOps(config, worker.ops), "\n");
  }
  std::vector<std::string> hops = {"coordinator"};
  for (const Segment& segment : plan.route) hops.push_back(segment.worker);
  hops.push_back("coordinator");
  int64_t kv_bytes = 0;
  for (const PlacedWorker& worker : plan.workers) kv_bytes += worker.memory.kv;
  const std::string nextn =
      config.num_nextn_layers == 0
          ? ""
          : absl::StrCat("; ", config.num_nextn_layers, " for multi-token prediction left out");
  return absl::StrCat(
      config.name, " (", config.architecture, ", ", config.num_hidden_layers, " layers", nextn,
      ") on ", plan.workers.size(), plan.workers.size() == 1 ? " worker" : " workers", "\n", places,
      "route: ", absl::StrJoin(hops, " -> "), "\n", "context: ", plan.shape.context_length,
      " tokens per sequence; KV cache: ", int64_t{plan.shape.num_kv_blocks} * kKvBlockTokens,
      " tokens, ", FormatBytes(kv_bytes), "\n", FormatMemoryTable(plan.workers));
}

}  // namespace dovetail::coordinator
