#include "coordinator/placement/rule_placement.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

class Placer {
 public:
  Placer(const model::ModelConfig& config, const RuleSet& rules,
         const std::vector<DeviceInfo>& devices, std::vector<ModulePlacement>* modules)
      : config_(config), rules_(rules), devices_(devices), modules_(*modules) {}

  absl::Status Run() {
    for (const Rule& rule : rules_.rules) CheckRule(rule);
    PlaceModules();
    if (mistakes_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrJoin(mistakes_, "\n"));
  }

 private:
  bool HasDevice(const std::string& name) const {
    return std::any_of(devices_.begin(), devices_.end(),
                       [&](const DeviceInfo& device) { return device.name == name; });
  }
  std::string DeviceNames() const {
    return absl::StrJoin(devices_, ", ", [](std::string* out, const DeviceInfo& device) {
      absl::StrAppend(out, device.name);
    });
  }

  // False when the rule names layers that the model does not have.
  bool CheckLayers(const Rule& rule) {
    const int num_layers = config_.num_hidden_layers;
    bool fits = true;
    for (const auto& [first, last] : rule.layers) {
      if (last < num_layers) continue;
      fits = false;
      mistakes_.push_back(absl::StrCat(rule.layers_location, ": the rule names layer ", last,
                                       ", but the model has ", num_layers, " layers (0-",
                                       num_layers - 1, ")"));
    }
    return fits;
  }

  void CheckRule(const Rule& rule) {
    if (!HasDevice(rule.place)) {
      mistakes_.push_back(absl::StrCat(rule.place_location, ": unknown worker `", rule.place,
                                       "`; known: ", DeviceNames()));
    }
    if (!CheckLayers(rule)) return;
    if (!rule.experts.empty()) {
      mistakes_.push_back(absl::StrCat(
          rule.ref.location(), config_.experts.count == 0
                                   ? ": the rule places experts, but the model is dense"
                                   : ": the rule divides the experts of a layer, which is not "
                                     "supported yet; place the whole mlp"));
      return;
    }
    const bool matches = std::any_of(modules_.begin(), modules_.end(),
                                     [&](const auto& module) { return rule.Matches(module.op); });
    if (!matches) {
      mistakes_.push_back(
          absl::StrCat(rule.ref.location(), ": the rule matches no module of the model"));
    }
  }

  void PlaceModules() {
    std::vector<Op> ownerless;
    for (ModulePlacement& module : modules_) {
      const auto rule = std::find_if(rules_.rules.begin(), rules_.rules.end(),
                                     [&](const Rule& r) { return r.Matches(module.op); });
      if (rule == rules_.rules.end()) {
        ownerless.push_back(module.op);
        continue;
      }
      module.device = rule->place;
      module.rule = rule->ref;
    }
    if (ownerless.empty()) return;
    mistakes_.push_back(absl::StrCat(rules_.file, ": no rule places ",
                                     absl::StrJoin(CollapseModules(ownerless), ", ")));
  }

  const model::ModelConfig& config_;
  const RuleSet& rules_;
  const std::vector<DeviceInfo>& devices_;
  std::vector<ModulePlacement>& modules_;
  std::vector<std::string> mistakes_;
};

}  // namespace

absl::Status PlaceByRules(const model::ModelConfig& config, const RuleSet& rules,
                          const std::vector<DeviceInfo>& devices,
                          std::vector<ModulePlacement>* modules) {
  return Placer(config, rules, devices, modules).Run();
}

}  // namespace dovetail::coordinator
