#include "coordinator/placement/ktransformers/place.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/ktransformers/builtin_tree.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/ktransformers/tree_shape.h"
#include "coordinator/placement/op_choice.h"
#include "coordinator/placement/role.h"
#include "coordinator/placement/rule_split.h"

namespace dovetail::coordinator::ktransformers {
namespace {

// What speaks for a device: bytes of weights, and the rule that gave it.
struct Vote {
  int64_t bytes = 0;
  int rule = -1;
  std::set<std::string> matrices;  // "q_proj": last parts of the modules
};

bool IsGpu(const DeviceInfo& device) {
  const std::string& name = device.name;
  return device.kind == DeviceKind::kCuda ||
         absl::StartsWith(name.substr(name.find('/') + 1), "cuda:");
}

class Placer {
 public:
  Placer(const model::ModelConfig& config, const model::GgufFile& gguf, const RuleFile& rules,
         const DeviceMap& device_map, const std::vector<DeviceInfo>& devices, Placement* placement)
      : config_(config),
        gguf_(gguf),
        rules_(rules),
        device_map_(device_map),
        devices_(devices),
        placement_(*placement) {}

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
    SpreadOverCpus();
    CheckGpuCount();
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
      const std::string name = ModuleOf(shape, module->op, spec);
      const MapEntry* entry = map_.Find(name);
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
    Assign(winner->first, module);
  }

  void Assign(const std::string& device, ModulePlacement* module) {
    if (device == "cpu") {
      on_cpu_.push_back(module);
      return;
    }
    const DeviceInfo* found = FindDevice(devices_, device);
    if (absl::StartsWith(device, "cuda:")) found = NthGpu(device);
    if (found == nullptr) {
      Missing(device, module->rule);
      return;
    }
    SetDevice(*found, module);
  }

  static void SetDevice(const DeviceInfo& device, ModulePlacement* module) {
    module->device = device.name;
    module->op_name = OpName(module->op, "", device);
  }

  const DeviceInfo* NthGpu(absl::string_view device) const {
    int number = 0;
    absl::ConsumePrefix(&device, "cuda:");
    if (!absl::SimpleAtoi(device, &number)) return nullptr;
    for (const DeviceInfo& info : devices_) {
      if (IsGpu(info) && number-- == 0) return &info;
    }
    return nullptr;
  }

  void Missing(const std::string& device, const std::optional<RuleRef>& rule) {
    if (absl::StartsWith(device, "cuda:")) {
      missing_gpus_.insert(device);
      return;
    }
    if (!missing_.insert(device).second) return;
    const Place at = rule ? Place{rule->line, rule->col} : Place();
    const std::string kind = device.substr(0, device.find(':'));
    if (kind == "npu" || kind == "xpu") {
      Report("unsupported-device", Severity::kError, at,
             absl::StrCat("the rules place modules on `", device,
                          "`, but there are workers for "
                          "CPUs and NVIDIA GPUs alone; --map ",
                          kind, ":*=cpu:0 places them on a CPU worker"));
    } else {
      Report("unknown-device", Severity::kError, at,
             absl::StrCat("there is no worker `", device, "`; known: ", DeviceNames(devices_)));
    }
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

  // Runs of whole layers, in proportion to what fits.
  void SpreadOverCpus() {
    if (on_cpu_.empty()) return;
    std::vector<const DeviceInfo*> cpus;
    std::vector<double> weights;
    for (const DeviceInfo& device : devices_) {
      if (IsGpu(device)) continue;
      cpus.push_back(&device);
      weights.push_back(std::max<double>(1.0, static_cast<double>(device.budget())));
    }
    if (cpus.empty()) {
      Report("unknown-device", Severity::kError, {},
             absl::StrCat("the rules place modules on `cpu`, but there is no CPU worker; known: ",
                          DeviceNames(devices_)));
      return;
    }
    std::vector<double> sizes;
    std::vector<size_t> unit_of;
    int layer = -1;
    for (const ModulePlacement* module : on_cpu_) {
      const bool same =
          !sizes.empty() && (module->op.layer < 0 || layer < 0 || module->op.layer == layer);
      if (!same) sizes.push_back(0);
      if (module->op.layer >= 0) layer = module->op.layer;
      sizes.back() += static_cast<double>(StoredBytesOf(config_, gguf_, module->op));
      unit_of.push_back(sizes.size() - 1);
    }
    const std::vector<int> runs = SplitInProportion(sizes, weights);
    for (size_t i = 0; i < on_cpu_.size(); ++i) SetDevice(*cpus[runs[unit_of[i]]], on_cpu_[i]);
  }

  void CheckGpuCount() {
    if (missing_gpus_.empty()) return;
    const auto num_gpus = std::count_if(devices_.begin(), devices_.end(), IsGpu);
    Report(
        "unknown-device", Severity::kError, {},
        absl::StrCat("the rules use ", absl::StrJoin(missing_gpus_, ", "), ", but there ",
                     num_gpus == 1 ? "is " : "are ", num_gpus == 0 ? "no" : absl::StrCat(num_gpus),
                     num_gpus == 1 ? " GPU worker" : " GPU workers", "; --map ",
                     *missing_gpus_.rbegin(), "=", num_gpus == 0 ? "cpu:0" : "cuda:0",
                     " uses another for it, --map cuda:*=cpu:0 ", "none"));
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
  std::vector<ModulePlacement*> on_cpu_;
  std::set<std::string> missing_gpus_;
  std::set<std::string> missing_;
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
