#include "coordinator/placement/rule_placement.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/expert_parts.h"
#include "coordinator/placement/op_choice.h"
#include "coordinator/placement/plan_table.h"
#include "coordinator/placement/rule_checks.h"
#include "coordinator/placement/rule_split.h"
#include "model/row_parts.h"

namespace dovetail::coordinator {
namespace {

// A rule's devices: indices, and the weights with which they share.
struct Target {
  std::vector<size_t> devices;
  std::vector<double> weights;
};

class Placer {
 public:
  Placer(const model::ModelConfig& config, const model::GgufFile& file, const RuleSet& rules,
         const std::vector<DeviceInfo>& devices, Placement* placement)
      : config_(config), file_(file), rules_(rules), devices_(devices), placement_(*placement) {}

  void Run() {
    for (const Rule& rule : rules_.rules) targets_.push_back(TargetOf(rule));
    const std::vector<Op> ops =
        DivideExperts(model::OpsOf(config_), [&](const Op& op) { return OwnerOf(op); });
    placement_.modules.clear();
    for (const Op& op : ops) {
      placement_.modules.push_back({op, model::ModuleName(op)});
    }
    deciders_ = DecidingRules(rules_, ops);
    RoutersFollowAttention();
    for (size_t i = 0; i < rules_.rules.size(); ++i) Distribute(static_cast<int>(i));
    CheckSharedExperts();
    CheckRules(config_, rules_, ops, deciders_, &placement_.diagnostics);
    CheckOps();
  }

 private:
  void Report(absl::string_view code, Severity severity, SourcePlace at, std::string message) {
    placement_.diagnostics.push_back(
        {std::string(code), severity, rules_.file, at.line, at.col, std::move(message)});
  }

  Target TargetOf(const Rule& rule) {
    Target target;
    for (const Share& share : rule.shares) {
      std::vector<size_t> meant;
      for (size_t i = 0; i < devices_.size(); ++i) {
        if (Means(share.device, devices_[i])) meant.push_back(i);
      }
      if (meant.empty()) {
        Report("unknown-device", Severity::kError, share.at,
               absl::StrCat(IsGroup(share.device) ? "no device belongs to `" : "unknown worker `",
                            share.device, "`; known: ", DeviceNames(devices_)));
      }
      // Without weights devices share in proportion to what fits into them; rows evenly.
      const auto room_of = [&](size_t i) {
        return rule.by == SplitBy::kRows ? 1.0 : static_cast<double>(devices_[i].budget());
      };
      double room = 0;
      for (const size_t i : meant) room += room_of(i);
      for (const size_t i : meant) {
        const double own = room_of(i);
        target.devices.push_back(i);
        target.weights.push_back(share.weight > 0 ? share.weight * own / room : own);
      }
    }
    return target;
  }

  // A number for who takes one expert: the deciding rule and, of a rule that divides experts, which
  // of its devices.
  int OwnerOf(const Op& op) const {
    constexpr int kMostDevices = 1 << 12;
    const int rule_idx = DecidingRules(rules_, {op}).front();
    if (rule_idx < 0 || rules_.rules[rule_idx].by != SplitBy::kExperts) {
      return (rule_idx + 1) * kMostDevices;
    }
    return (rule_idx + 1) * kMostDevices + RunOfExpert(rule_idx, op.expert_begin);
  }

  // Which of the rule's devices takes this expert of each layer.
  int RunOfExpert(int rule_idx, int expert) const {
    const Target& target = targets_[rule_idx];
    if (target.devices.empty()) return 0;
    const Ranges& experts = rules_.rules[rule_idx].experts;
    std::vector<double> sizes;
    size_t position = 0;
    for (int e = 0; e < config_.experts.count; ++e) {
      if (!experts.empty() && !Contains(experts, e)) continue;
      if (e == expert) position = sizes.size();
      sizes.push_back(1);
    }
    return SplitInProportion(sizes, target.weights)[position];
  }

  // A router that no rule places needs what attention leaves, and next to nothing else.
  void RoutersFollowAttention() {
    int attention = -1;
    for (size_t i = 0; i < placement_.modules.size(); ++i) {
      const OpKind kind = placement_.modules[i].op.kind;
      if (kind == OpKind::kAttention) attention = deciders_[i];
      if (kind == OpKind::kRouter && deciders_[i] < 0) deciders_[i] = attention;
    }
  }

  // The rule's modules in units: a layer's modules stay together; what is before the layers belongs
  // to the first of them, what is after them to the last.
  void Distribute(int rule_idx) {
    const Rule& rule = rules_.rules[rule_idx];
    const Target& target = targets_[rule_idx];
    std::vector<std::vector<ModulePlacement*>> units;
    std::vector<double> sizes;
    int layer = -1;
    for (size_t i = 0; i < placement_.modules.size(); ++i) {
      if (deciders_[i] != rule_idx) continue;
      ModulePlacement& module = placement_.modules[i];
      module.rule = rule.ref;
      const bool same_unit =
          !units.empty() && (module.op.layer < 0 || layer < 0 || module.op.layer == layer);
      if (!same_unit) {
        units.emplace_back();
        sizes.push_back(0);
      }
      if (module.op.layer >= 0 || units.size() == 1) layer = std::max(layer, module.op.layer);
      units.back().push_back(&module);
      sizes.back() += static_cast<double>(StoredBytesOf(config_, file_, module.op));
    }
    if (target.devices.empty() || units.empty()) return;
    if (rule.by == SplitBy::kExperts) return PlaceExperts(rule_idx);
    if (rule.by == SplitBy::kRows) return ShareRows(rule_idx);
    if (rule.by == SplitBy::kLayers) std::fill(sizes.begin(), sizes.end(), 1.0);
    const std::vector<int> runs = SplitInProportion(sizes, target.weights);
    for (size_t i = 0; i < units.size(); ++i) {
      const DeviceInfo& device = devices_[target.devices[runs[i]]];
      for (ModulePlacement* module : units[i]) {
        module->device = device.name;
        module->op_name = OpName(module->op, rule.op, device);
      }
    }
  }

  // `by: experts`: each layer's experts over the rule's devices; what is no experts with the first.
  void PlaceExperts(int rule_idx) {
    const Target& target = targets_[rule_idx];
    for (size_t i = 0; i < placement_.modules.size(); ++i) {
      if (deciders_[i] != rule_idx) continue;
      ModulePlacement& module = placement_.modules[i];
      const int run =
          module.op.kind == OpKind::kExperts ? RunOfExpert(rule_idx, module.op.expert_begin) : 0;
      const DeviceInfo& device = devices_[target.devices[run]];
      module.device = device.name;
      module.op_name = OpName(module.op, rules_.rules[rule_idx].op, device);
    }
  }

  // `by: rows`: the devices compute each module together. An embedding goes to the first of them.
  void ShareRows(int rule_idx) {
    const Rule& rule = rules_.rules[rule_idx];
    const std::vector<Member> members = MembersOf(rule, targets_[rule_idx]);
    if (members.empty()) return;
    std::set<OpKind> refused;
    for (size_t i = 0; i < placement_.modules.size(); ++i) {
      if (deciders_[i] != rule_idx) continue;
      ModulePlacement& module = placement_.modules[i];
      const DeviceInfo& device = devices_[targets_[rule_idx].devices.front()];
      module.device = device.name;
      module.op_name = OpName(module.op, rule.op, device);
      if (members.size() == 1 || module.op.kind == OpKind::kEmbedding) continue;
      const std::string why = WhyNotShared(module, members.size());
      if (!why.empty() && refused.insert(module.op.kind).second) {
        Report("row-split", Severity::kError, rule.by_at, why);
      }
      module.members = members;
    }
  }

  // Empty where they cannot be.
  std::vector<Member> MembersOf(const Rule& rule, const Target& target) {
    std::vector<Member> members;
    for (size_t i = 0; i < target.devices.size(); ++i) {
      members.push_back({devices_[target.devices[i]].name, target.weights[i]});
      const std::set<size_t> seen(target.devices.begin(), target.devices.begin() + i);
      if (seen.count(target.devices[i]) == 0) continue;
      Report("row-split", Severity::kError, rule.shares.front().at,
             absl::StrCat("the split by rows means ", members.back().worker, " twice"));
      return {};
    }
    if (members.size() > size_t{kMaxRowMembers}) {
      Report("row-split", Severity::kError, rule.shares.front().at,
             absl::StrCat("rows can be shared by ", kMaxRowMembers, " devices, not by ",
                          members.size()));
      return {};
    }
    return members;
  }

  std::string WhyNotShared(const ModulePlacement& module, size_t num_members) const {
    const std::string why = model::WhyNotSplit(config_, module.op);
    if (!why.empty()) {
      return absl::StrCat("`by: rows` is not supported for role ", RoleName(RoleOf(module.op)),
                          ": ", why);
    }
    const model::RowUnits units = model::RowUnitsOf(config_, file_, module.op);
    if (units.count == 0 || units.count >= static_cast<int64_t>(num_members)) return "";
    return absl::StrCat(num_members, " devices cannot share the rows of ", module.module,
                        ": it has ", units.count, " ", units.name);
  }

  // A router may be with the first of the devices alone. Experts and shared experts are summed up
  // with what the router chose, so all parts of a layer are shared by the same devices, or none.
  void CheckSharedExperts() {
    std::set<int> reported;  // rules
    auto& modules = placement_.modules;
    for (size_t begin = 0, end = 0; begin < modules.size(); begin = end) {
      end = begin + 1;
      if (modules[begin].op.kind != OpKind::kRouter) continue;
      while (end < modules.size() && IsExpertPart(modules[end].op.kind) &&
             modules[end].op.layer == modules[begin].op.layer) {
        ++end;
      }
      const size_t parts = config_.experts.shared_intermediate_size > 0 ? 3 : 2;
      const auto first = modules.begin() + static_cast<ptrdiff_t>(begin);
      const auto past = modules.begin() + static_cast<ptrdiff_t>(end);
      const auto shared = std::find_if(first + 1, past,
                                       [](const ModulePlacement& m) { return !m.members.empty(); });
      if (shared == past) {
        first->members.clear();
        continue;
      }
      const bool alike = std::all_of(
          first, past, [&](const ModulePlacement& m) { return m.members == shared->members; });
      if (alike && end - begin == parts) continue;
      const int rule_idx = deciders_[static_cast<size_t>(shared - modules.begin())];
      if (!reported.insert(rule_idx).second) continue;
      Report("row-split", Severity::kError, rules_.rules[rule_idx].by_at,
             absl::StrCat("`by: rows` shares ", shared->module, " and not all other parts of ",
                          "model.layers.", shared->op.layer, ".mlp alike: match `role: mlp`"));
    }
  }

  // Ops that a rule asks for and a device cannot run: once for each rule and device.
  void CheckOps() {
    std::map<std::pair<int, std::string>, std::string> fallbacks;
    for (size_t i = 0; i < placement_.modules.size(); ++i) {
      const ModulePlacement& module = placement_.modules[i];
      if (deciders_[i] < 0 || module.device.empty()) continue;
      const Rule& rule = rules_.rules[deciders_[i]];
      const std::optional<Kernel> kernel = FindKernel(rule.op);
      const DeviceInfo* device = FindDevice(devices_, module.device);
      if (!kernel || device == nullptr || CanRun(*kernel, *device)) continue;
      fallbacks.try_emplace({deciders_[i], device->name}, KernelName(BestKernel(*device)));
    }
    for (const auto& [key, kernel] : fallbacks) {
      const Rule& rule = rules_.rules[key.first];
      Report("op-fallback", Severity::kWarning, rule.op_at,
             absl::StrCat(key.second, " cannot run `", rule.op, "`; it takes `", kernel,
                          "`, with the same results"));
    }
  }

  const model::ModelConfig& config_;
  const model::GgufFile& file_;
  const RuleSet& rules_;
  const std::vector<DeviceInfo>& devices_;
  Placement& placement_;
  std::vector<Target> targets_;
  std::vector<int> deciders_;
};

}  // namespace

void PlaceByRules(const model::ModelConfig& config, const model::GgufFile& file,
                  const RuleSet& rules, const std::vector<DeviceInfo>& devices,
                  Placement* placement) {
  Placer(config, file, rules, devices, placement).Run();
}

void ApplyBudgets(const RuleSet& rules, std::vector<DeviceInfo>* devices,
                  std::vector<Diagnostic>* diagnostics) {
  const std::vector<DeviceInfo> described = *devices;
  for (const DeviceBudget& budget : rules.budgets) {
    bool found = false;
    for (size_t i = 0; i < devices->size(); ++i) {
      DeviceInfo& device = (*devices)[i];
      if (!Means(budget.device, device)) continue;
      found = true;
      if (budget.memory_bytes) {
        device.memory_bytes = std::min(described[i].memory_bytes, *budget.memory_bytes);
        device.memory_pool.clear();
      }
      if (budget.reserve_bytes) device.reserve_bytes = *budget.reserve_bytes;
    }
    if (found) continue;
    diagnostics->push_back(
        {"unknown-device", Severity::kWarning, rules.file, budget.at.line, budget.at.col,
         absl::StrCat("`", budget.device, "` is none of the devices: ", DeviceNames(*devices))});
  }
}

}  // namespace dovetail::coordinator
