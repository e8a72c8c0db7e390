#include "coordinator/placement/ktransformers/place.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/device_assigner.h"
#include "coordinator/placement/ktransformers/builtin_tree.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/ktransformers/tree_shape.h"

namespace dovetail::coordinator::ktransformers {
namespace {

// What speaks for a device: bytes of weights, and the rule that gave it.
struct Vote {
  int64_t bytes = 0;
  int rule = -1;
  std::set<std::string> matrices;  // "q_proj": last parts of the modules
};

class Placer {
 public:
  Placer(const model::ModelConfig& config, const model::GgufFile& gguf, const RuleFile& rules,
         const DeviceMap& device_map, const std::vector<DeviceInfo>& devices, Placement* placement)
      : config_(config),
        gguf_(gguf),
        rules_(rules),
        device_map_(device_map),
        devices_(devices),
        placement_(*placement),
        assigner_(config, gguf, devices, rules.file, placement) {}

  void Run(const TreeShape& shape) {
    tree_ = BuildTree(shape);
    map_ = MapModules(tree_, rules_);
    CountBytes(shape);
    const LintContext context{rules_,
                              tree_,
                              map_,
                              device_map_,
                              devices_,
                              config_.hidden_size,
                              [this](absl::string_view module) {
                                const auto it = bytes_.find(std::string(module));
                                return it == bytes_.end() ? 0 : it->second;
                              }};
    for (Diagnostic& d : Lint(context)) placement_.diagnostics.push_back(std::move(d));
    for (ModulePlacement& module : placement_.modules) Decide(shape, &module);
    ReportSplits();
    assigner_.Finish();
  }

 private:
  void Report(absl::string_view code, Severity severity, Place at, std::string message) {
    placement_.diagnostics.push_back(
        {std::string(code), severity, rules_.file, at.line, at.col, std::move(message)});
  }

  int64_t BytesOf(const std::string& tensor) const {
    const model::GgufTensor* found = gguf_.FindTensor(tensor);
    return found == nullptr ? 0 : static_cast<int64_t>(found->bytes);
  }

  // Of each module, and of each list of experts.
  void CountBytes(const TreeShape& shape) {
    for (const ModulePlacement& module : placement_.modules) {
      for (const model::WeightSpec& spec : model::WeightsOf(config_, module.op)) {
        const std::string name = ModuleOf(shape, module.op, spec);
        const size_t expert = name.find(".experts.");
        constexpr size_t kListLength = 8;  // ".experts"
        bytes_[expert == std::string::npos ? name : name.substr(0, expert + kListLength)] +=
            BytesOf(spec.tensor);
      }
    }
  }

  // The output matrix may be the embedding's tensor, but it is the output's module.
  static std::string ModuleOf(const TreeShape& shape, const Op& op, const model::WeightSpec& spec) {
    return op.kind == OpKind::kLmHead ? "lm_head" : ModuleOfTensor(shape, spec.tensor);
  }

  void Decide(const TreeShape& shape, ModulePlacement* module) {
    std::map<std::string, Vote> votes;
    for (const model::WeightSpec& spec : model::WeightsOf(config_, module->op)) {
      if (spec.is_copy) continue;  // another op decides where it is
      const std::string name = ModuleOf(shape, module->op, spec);
      const MapEntry* entry = map_.FindOwner(name);
      const std::string device = device_map_.Apply(DeviceOf(rules_, *entry));
      if (device.empty()) continue;  // Lint has said so
      const int64_t bytes = BytesOf(spec.tensor);
      Vote& vote = votes[device];
      if (vote.bytes == 0 || (!spec.is_vector && vote.matrices.empty())) vote.rule = entry->rule;
      vote.bytes += bytes;
      if (!spec.is_vector) vote.matrices.insert(name.substr(name.rfind('.') + 1));
    }
    if (votes.empty()) return;
    const auto winner = std::max_element(
        votes.begin(), votes.end(),
        [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
    for (const auto& [device, vote] : votes) {
      if (device == winner->first || vote.matrices.empty()) continue;
      splits_[{absl::StrJoin(vote.matrices, ", "), device, winner->first, vote.rule}].push_back(
          module->module);
    }
    if (winner->second.rule >= 0) {
      const Rule& rule = rules_.rules[winner->second.rule];
      module->rule = RuleRef{rules_.file, rule.place.line, rule.place.col, rule.index};
    }
    assigner_.Assign(winner->first, module);
  }

  // Layers of an op kind whose matrices lie apart, once for each way of it.
  void ReportSplits() {
    for (const auto& [how, modules] : splits_) {
      const auto& [matrices, device, winner, rule] = how;
      Report("split-module", Severity::kWarning, rule < 0 ? Place() : rules_.rules[rule].place,
             absl::StrCat(matrices, " of ", JoinModules(modules),
                          absl::StrContains(matrices, ",") ? " are" : " is", " placed on ", device,
                          " and the rest on ", winner,
                          ", which has most of the bytes and takes all of it"));
    }
  }

  const model::ModelConfig& config_;
  const model::GgufFile& gguf_;
  const RuleFile& rules_;
  const DeviceMap& device_map_;
  const std::vector<DeviceInfo>& devices_;
  Placement& placement_;
  ModuleTree tree_;
  RuleMap map_;
  std::map<std::string, int64_t> bytes_;
  DeviceAssigner assigner_;
  // (matrices, their device, the op's device, rule) -> modules
  std::map<std::tuple<std::string, std::string, std::string, int>, std::vector<std::string>>
      splits_;
};

}  // namespace

void PlaceByRuleFile(const model::ModelConfig& config, const model::GgufFile& file,
                     const RuleFile& rules, const DeviceMap& device_map,
                     const std::vector<DeviceInfo>& devices, Placement* placement) {
  const absl::StatusOr<TreeShape> shape = ShapeFromModel(config);
  if (!shape.ok()) {
    placement->diagnostics.push_back(
        {"no-tree", Severity::kError, rules.file, 0, 0, std::string(shape.status().message())});
    return;
  }
  Placer(config, file, rules, device_map, devices, placement).Run(*shape);
}

}  // namespace dovetail::coordinator::ktransformers
