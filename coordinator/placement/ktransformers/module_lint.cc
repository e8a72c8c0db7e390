// Modules that end up where nobody may have meant them to be.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/ktransformers/op_names.h"
#include "coordinator/placement/plan_table.h"
#include "coordinator/placement/role.h"

namespace dovetail::coordinator::ktransformers {
namespace {

// A module that owns weights, and what the walk gave it.
struct Owner {
  const Module* module = nullptr;
  const MapEntry* entry = nullptr;  // its own, or that of the op which owns it
  std::string device;               // where it goes, after --map
  int layer = -1;
  bool is_expert = false;  // one of a layer's experts
};

std::string Range(const std::set<int>& layers) {
  const std::vector<int> numbers(layers.begin(), layers.end());
  return absl::StrCat(numbers.size() == 1 ? "layer " : "layers ", FormatRanges(ToRanges(numbers)));
}

class ModuleLint {
 public:
  ModuleLint(const LintContext& context, std::vector<Diagnostic>* out)
      : context_(context), out_(*out) {
    for (const Module& module : context.tree.modules) {
      if (!module.owns_weights) continue;
      Owner owner{&module, context.map.FindOwner(module.name), "", LayerOf(module.name),
                  absl::StrContains(module.name, ".experts")};
      owner.device = context.device_map.Apply(DeviceOf(context.file, *owner.entry));
      owners_.push_back(std::move(owner));
    }
  }

  void Run() {
    FindAttentionDevices();
    CheckNoDevice();
    const std::set<int> holes = CheckHoles();
    CheckExperts();
    CheckUnmatched(holes);
    CheckRouters();
    CheckEnds();
  }

 private:
  void Report(absl::string_view code, Severity severity, Place at, std::string message) {
    out_.push_back(
        {std::string(code), severity, context_.file.file, at.line, at.col, std::move(message)});
  }
  const Rule* RuleOf(const Owner& owner) const {
    return owner.entry->rule < 0 ? nullptr : &context_.file.rules[owner.entry->rule];
  }
  std::string Default() const { return context_.device_map.Apply(kDefaultDevice); }

  // Where most of a layer's attention is: its neighbours are judged by that.
  void FindAttentionDevices() {
    std::map<int, std::map<std::string, int>> votes;
    for (const Owner& owner : owners_) {
      if (owner.layer < 0 || !absl::StrContains(owner.module->name, "attn")) continue;
      if (owner.entry->rule >= 0) ++votes[owner.layer][owner.device];
    }
    for (const auto& [layer, devices] : votes) {
      attention_device_[layer] =
          std::max_element(devices.begin(), devices.end(), [](const auto& a, const auto& b) {
            return a.second < b.second;
          })->first;
    }
  }

  void CheckNoDevice() {
    std::map<int, std::vector<std::string>> lacking;
    for (const Owner& owner : owners_) {
      if (owner.device.empty()) lacking[owner.entry->rule].push_back(owner.module->name);
    }
    for (const auto& [rule, names] : lacking) {
      Report("no-device", Severity::kError, context_.file.rules[rule].place,
             absl::StrCat(Describe(context_.file.rules[rule]), " gives no `generate_device` to ",
                          JoinModules(names)));
    }
  }

  // Layers of which no rule matches anything, while others have rules.
  std::set<int> CheckHoles() {
    std::map<int, bool> matched;
    for (const Owner& owner : owners_) {
      if (owner.layer >= 0) matched[owner.layer] |= owner.entry->rule >= 0;
    }
    std::set<int> holes;
    std::set<int> covered;
    for (const auto& [layer, is_matched] : matched) (is_matched ? covered : holes).insert(layer);
    if (covered.empty() || holes.empty()) return covered.empty() ? std::set<int>() : holes;
    const Rule* neighbour = RuleBesides(holes);
    const std::string own =
        neighbour == nullptr
            ? ""
            : absl::StrCat("; ", Describe(*neighbour), " covers ", Range(LayersOf(*neighbour)),
                           OneDigitHint(holes, *neighbour));
    Report("layer-hole", Severity::kWarning, neighbour == nullptr ? Place() : neighbour->name_place,
           absl::StrCat(Range(holes), holes.size() == 1 ? " is" : " are",
                        " matched by no rule and fall", holes.size() == 1 ? "s" : "", " to ",
                        Default(), own));
    return holes;
  }

  // The rule that takes most of the layers next to a hole.
  const Rule* RuleBesides(const std::set<int>& holes) const {
    std::map<int, int> counts;
    for (const Owner& owner : owners_) {
      const bool beside = holes.count(owner.layer + 1) > 0 || holes.count(owner.layer - 1) > 0;
      if (owner.layer >= 0 && beside && owner.entry->rule >= 0) ++counts[owner.entry->rule];
    }
    if (counts.empty()) return nullptr;
    const auto most = std::max_element(counts.begin(), counts.end(),
                                       [](auto& a, auto& b) { return a.second < b.second; });
    return &context_.file.rules[most->first];
  }

  std::set<int> LayersOf(const Rule& rule) const {
    std::set<int> layers;
    for (const Owner& owner : owners_) {
      if (owner.layer >= 0 && owner.entry->rule == rule.index) layers.insert(owner.layer);
    }
    return layers;
  }

  std::string OneDigitHint(const std::set<int>& holes, const Rule& rule) const {
    constexpr int kTwoDigits = 10;
    const std::set<int> own = LayersOf(rule);
    if (*holes.begin() >= kTwoDigits || own.empty() || *own.begin() < kTwoDigits) return "";
    return absl::StrCat(": its pattern `", rule.name.value_or(""), "` wants two digits");
  }

  // Experts on a GPU through a rule that does not speak of experts, or through none.
  void CheckExperts() {
    std::map<int, std::set<int>> layers_by_rule;
    std::map<int, std::string> device_of;
    for (const Owner& owner : owners_) {
      if (!owner.is_expert || owner.layer < 0 || !absl::StartsWith(owner.device, "cuda")) continue;
      const Rule* rule = RuleOf(owner);
      if (rule != nullptr && ClassifyOp(rule->op) == OpClass::kExperts) continue;
      layers_by_rule[owner.entry->rule].insert(owner.layer);
      device_of[owner.entry->rule] = owner.device;
    }
    for (const auto& [index, layers] : layers_by_rule) {
      const Rule* rule = index < 0 ? nullptr : &context_.file.rules[index];
      const int64_t bytes = ExpertBytes(layers);
      Report(
          "experts-on-gpu", Severity::kWarning, rule == nullptr ? Place() : rule->place,
          absl::StrCat("all experts of ", Range(layers), " (", layers.size(),
                       layers.size() == 1 ? " layer" : " layers",
                       bytes > 0 ? absl::StrCat(", ", FormatBytes(bytes)) : "", ") go to ",
                       device_of[index],
                       rule == nullptr
                           ? ", because no rule matches them"
                           : absl::StrCat(" by ", Describe(*rule), ", which does not name experts"),
                       "; a rule for `\\.mlp\\.experts$` before the others keeps them on the CPU"));
    }
  }

  int64_t ExpertBytes(const std::set<int>& layers) const {
    int64_t bytes = 0;
    if (!context_.bytes_of) return 0;
    for (const Module& module : context_.tree.modules) {
      if (module.num_experts > 0 && layers.count(LayerOf(module.name)) > 0) {
        bytes += context_.bytes_of(module.name);
      }
    }
    return bytes;
  }

  // Away from their neighbours: a warning; beside them: a note.
  void CheckUnmatched(const std::set<int>& holes) {
    std::vector<std::string> away, beside;
    for (const Owner& owner : owners_) {
      if (owner.entry->rule >= 0 || owner.is_expert || holes.count(owner.layer) > 0) continue;
      const std::string near = NeighbourOf(owner);
      (near.empty() || near == owner.device ? beside : away).push_back(owner.module->name);
    }
    if (!away.empty()) {
      Report("unmatched", Severity::kWarning, {},
             absl::StrCat("no rule matches ", JoinModules(away), "; ",
                          away.size() == 1 ? "it goes" : "they go", " to ", Default(),
                          ", away from what ", away.size() == 1 ? "it belongs" : "they belong",
                          " to"));
    }
    if (!beside.empty()) {
      Report("unmatched", Severity::kNote, {},
             absl::StrCat("no rule matches ", JoinModules(beside), "; ",
                          beside.size() == 1 ? "it goes" : "they go", " to ", Default()));
    }
  }

  std::string NeighbourOf(const Owner& owner) const {
    if (attention_device_.empty()) return "";
    const auto it =
        owner.layer < 0 ? std::prev(attention_device_.end()) : attention_device_.find(owner.layer);
    return it == attention_device_.end() ? "" : it->second;
  }

  // Routers choose experts; in fewer bits they choose others.
  void CheckRouters() {
    std::map<int, std::vector<std::string>> quantised;
    for (const Owner& owner : owners_) {
      const Rule* rule = RuleOf(owner);
      if (rule == nullptr || !IsRouter(*owner.module) || owner.entry->name != owner.module->name) {
        continue;
      }
      const OpInfo* op = FindOp(rule->Device("generate_op"));
      if (op != nullptr && op->requantises_to > 0)
        quantised[rule->index].push_back(owner.module->name);
    }
    for (const auto& [index, names] : quantised) {
      const Rule& rule = context_.file.rules[index];
      const YamlNode* at = rule.Kwarg("generate_op");
      Report("router-quantised", Severity::kWarning, {at->line, at->col},
             absl::StrCat("`", at->scalar, "` would make the router ", JoinModules(names), " ",
                          FindOp(at->scalar)->requantises_to,
                          "-bit; Dovetail keeps it as the file has it"));
    }
  }

  static bool IsRouter(const Module& module) {
    return absl::EndsWith(module.name, ".gate") || absl::EndsWith(module.name, "router");
  }

  // The last norm and the output matrix away from the last layer, or from each other.
  void CheckEnds() {
    const Owner* norm = FindOwner("model.norm");
    const Owner* head = FindOwner("lm_head");
    if (norm == nullptr || head == nullptr || attention_device_.empty()) return;
    const auto& [last_layer, last_device] = *std::prev(attention_device_.end());
    CheckHop(*norm, last_device, absl::StrCat("layer ", last_layer));
    CheckHop(*head, norm->device, "model.norm");
  }

  void CheckHop(const Owner& owner, const std::string& before, const std::string& what) {
    if (owner.device.empty() || before.empty() || owner.device == before) return;
    const Rule* rule = RuleOf(owner);
    Place at;
    if (rule != nullptr) {
      const YamlNode* device = rule->Kwarg("generate_device");
      at = device == nullptr ? rule->place : Place{device->line, device->col};
    }
    const std::string price =
        context_.hidden_size > 0
            ? absl::StrCat(" of ", FormatBytes(context_.hidden_size * int64_t{sizeof(float)}))
            : "";
    Report("hop", Severity::kWarning, at,
           absl::StrCat(owner.module->name, " is on ", owner.device, " while ", what, " is on ",
                        before, ": one more hop", price, " for each token"));
  }

  const Owner* FindOwner(absl::string_view name) const {
    for (const Owner& owner : owners_) {
      if (owner.module->name == name) return &owner;
    }
    return nullptr;
  }

  const LintContext& context_;
  std::vector<Diagnostic>& out_;
  std::vector<Owner> owners_;
  std::map<int, std::string> attention_device_;  // by layer, after --map
};

}  // namespace

void LintModules(const LintContext& context, std::vector<Diagnostic>* out) {
  if (!context.map.entries.empty()) ModuleLint(context, out).Run();
}

}  // namespace dovetail::coordinator::ktransformers
