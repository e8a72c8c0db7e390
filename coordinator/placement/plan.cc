#include "coordinator/placement/plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "coordinator/placement/expert_parts.h"
#include "coordinator/placement/memory_check.h"
#include "coordinator/placement/plan_table.h"
#include "coordinator/placement/rule_placement.h"
#include "coordinator/placement/streaming.h"

namespace dovetail::coordinator {
namespace {

// Norm vectors are kept as f32 whatever their type; only matrices need a kernel.
void CheckWeightTypes(const model::ModelConfig& config, const model::GgufFile& file,
                      const std::vector<DeviceInfo>& devices, Placement* placement) {
  constexpr size_t kMostNamed = 3;
  std::map<std::pair<std::string, WeightType>, std::vector<std::string>> refused;
  const auto check = [&](const DeviceInfo& device, const Op& op) {
    for (const model::WeightSpec& spec : model::WeightsOf(config, op)) {
      const model::GgufTensor* tensor = file.FindTensor(spec.tensor);
      if (tensor == nullptr || spec.is_vector ||
          std::count(device.weight_types.begin(), device.weight_types.end(), tensor->type) > 0) {
        continue;
      }
      refused[{device.name, tensor->type}].push_back(spec.tensor);
    }
  };
  for (const ModulePlacement& module : placement->modules) {
    for (const std::string& name : DevicesOf(module)) {
      const DeviceInfo* device = FindDevice(devices, name);
      if (device != nullptr) check(*device, module.op);
    }
  }
  for (auto& [key, tensors] : refused) {
    const size_t more = tensors.size() - std::min(tensors.size(), kMostNamed);
    tensors.resize(tensors.size() - more);
    placement->diagnostics.push_back(
        {.code = "weight-type",
         .severity = Severity::kError,
         .message = absl::StrCat(key.first, " cannot compute with ", InfoOf(key.second).name,
                                 " weights: ", absl::StrJoin(tensors, ", "),
                                 more > 0 ? absl::StrCat(" and ", more, " more") : "")});
  }
}

// The last norm makes x as narrow as the rows whose logits are wanted; with lm_head elsewhere these
// rows make one hop more.
void CheckHead(const model::ModelConfig& config, Placement* placement) {
  const ModulePlacement* norm = nullptr;
  const ModulePlacement* head = nullptr;
  for (const ModulePlacement& module : placement->modules) {
    if (module.op.kind == OpKind::kNorm) norm = &module;
    if (module.op.kind == OpKind::kLmHead) head = &module;
  }
  if (norm == nullptr || head == nullptr || norm->device == head->device) return;
  if (norm->device.empty() || head->device.empty()) return;  // which has been said
  Diagnostic diagnostic{.code = "head-away-from-norm", .severity = Severity::kWarning};
  if (head->rule) {
    diagnostic.file = head->rule->file;
    diagnostic.line = head->rule->line;
    diagnostic.col = head->rule->col;
  }
  diagnostic.message = absl::StrCat(head->module, " is on ", head->device, " and ", norm->module,
                                    " on ", norm->device, ": one hop more for each step, with ",
                                    HopBytes(config, 1), " bytes for each sequence");
  placement->diagnostics.push_back(std::move(diagnostic));
}

Route CompileRoute(const std::vector<PlacedModule>& modules) {
  Route route;
  for (const PlacedModule& module : modules) {
    const bool follows = !route.empty() && route.back().worker == module.device &&
                         route.back().members == module.members;
    if (!follows) route.push_back({module.device, {}, module.members});
    route.back().ops.push_back(module.op);
  }
  return route;
}

void OrderModules(std::vector<ModulePlacement>* modules) {
  std::vector<Op> ops;
  std::vector<std::string> devices;
  for (const ModulePlacement& module : *modules) {
    ops.push_back(module.op);
    devices.push_back(module.device);
  }
  std::vector<ModulePlacement> ordered;
  for (const size_t i : OrderForFewHops(ops, devices)) ordered.push_back(std::move((*modules)[i]));
  *modules = std::move(ordered);
}

// " (shares rows with cpu:1)", or nothing.
std::string SharesText(const Plan& plan, const std::string& worker) {
  std::set<std::string> others;
  for (const Segment& segment : plan.route) {
    if (segment.members.empty() || MemberOf(segment, worker) < 0) continue;
    for (const Member& member : segment.members) {
      if (member.worker != worker) others.insert(member.worker);
    }
  }
  if (others.empty()) return "";
  return absl::StrCat(" (shares rows with ", absl::StrJoin(others, ", "), ")");
}

// What each module of a worker adds to its weights.
void MeasurePacked(const model::ModelConfig& config, const model::GgufFile& file,
                   const PlacedWorker& worker, Plan* plan) {
  const absl::StatusOr<std::vector<model::WeightSlot>> slots =
      model::LayOutWeights(config, file, worker.ops, worker.device.layout);
  DT_CHECK(slots.ok());  // a configuration is read from a file that has all tensors
  auto slot = slots->begin();
  for (PlacedModule& module : plan->modules) {
    const std::optional<Op> op = OpOn(module, worker.device.name);
    if (!op) continue;
    ModuleBytes bytes;
    for (; slot != slots->end() && slot->op == *op; ++slot) bytes.Add(*slot);
    module.packed_bytes += bytes.packed;
    module.in_place_bytes += bytes.in_place;
    if (!op->rows.whole()) module.member_bytes[op->rows.member] = bytes;
  }
  DT_CHECK(slot == slots->end());
}

}  // namespace

Plan MakePlan(const model::ModelConfig& config, const model::GgufFile& file, Placement placement,
              const std::vector<DeviceInfo>& devices, const StepShape& shape) {
  CheckWeightTypes(config, file, devices, &placement);
  CheckHead(config, &placement);
  Plan plan;
  plan.shape = shape;
  plan.diagnostics = std::move(placement.diagnostics);
  SortDiagnostics(&plan.diagnostics);
  if (HasErrors(plan.diagnostics)) return plan;
  OrderModules(&placement.modules);
  for (ModulePlacement& module : placement.modules) {
    for (const std::string& name : DevicesOf(module)) {
      DT_CHECK(FindDevice(devices, name) != nullptr);
    }
    plan.modules.push_back({std::move(module)});
    plan.modules.back().member_bytes.resize(plan.modules.back().members.size());
    plan.modules.back().stored_bytes = StoredBytesOf(config, file, plan.modules.back().op);
  }
  plan.route = CompileRoute(plan.modules);
  for (const DeviceInfo& device : devices) {
    PlacedWorker worker{device, {}, {}};
    for (const PlacedModule& module : plan.modules) {
      if (const std::optional<Op> op = OpOn(module, device.name)) worker.ops.push_back(*op);
    }
    if (worker.ops.empty()) continue;
    plan.workers.push_back(std::move(worker));
  }
  MeasureWeights(config, file, &plan);
  PlanMemory(config, &plan);
  CheckStreaming(config, file, &plan);
  return plan;
}

Plan PlanByRules(const model::ModelConfig& config, const model::GgufFile& file,
                 const RuleSet* rules, std::vector<DeviceInfo> devices, const StepShape& shape) {
  std::vector<Diagnostic> diagnostics;
  if (rules != nullptr) ApplyBudgets(*rules, &devices, &diagnostics);
  Placement placement = Place(config, file, rules, devices, shape);
  placement.diagnostics.insert(placement.diagnostics.end(), diagnostics.begin(), diagnostics.end());
  return MakePlan(config, file, std::move(placement), devices, shape);
}

void MeasureWeights(const model::ModelConfig& config, const model::GgufFile& file, Plan* plan) {
  for (PlacedModule& module : plan->modules) module.packed_bytes = module.in_place_bytes = 0;
  for (const PlacedWorker& worker : plan->workers) MeasurePacked(config, file, worker, plan);
}

ModuleBytes BytesOn(const PlacedModule& module, const std::string& device) {
  const std::optional<Op> op = OpOn(module, device);
  if (!op) return {};
  if (op->rows.whole()) return {module.stored_bytes, module.packed_bytes, module.in_place_bytes};
  return module.member_bytes[op->rows.member];
}

std::string DeviceText(const ModulePlacement& module) {
  if (module.members.empty()) return module.device;
  const auto shares = [](std::string* out, const Member& m) { absl::StrAppend(out, m.share); };
  return absl::StrCat(absl::StrJoin(DevicesOf(module), " + "), " by rows ",
                      absl::StrJoin(module.members, ":", shares));
}

int64_t HopBytes(const model::ModelConfig& config, int64_t rows) {
  return rows * config.hidden_size * static_cast<int64_t>(sizeof(float));
}

std::string DescribePlan(const Plan& plan, const model::ModelConfig& config) {
  std::string places;
  for (const PlacedWorker& worker : plan.workers) {
    absl::StrAppend(&places, "  ", worker.device.name, ": ", DescribeOps(config, worker.ops),
                    SharesText(plan, worker.device.name), "\n");
  }
  std::vector<std::string> hops = {"coordinator"};
  for (const Segment& segment : plan.route) hops.push_back(SegmentText(segment));
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
