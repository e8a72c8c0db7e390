#include "coordinator/placement/explain.h"

#include "absl/strings/match.h"

namespace dovetail::coordinator {
namespace {

bool IsNamed(absl::string_view module, absl::string_view name) {
  return name.empty() || module == name ||
         (absl::StartsWith(module, name) && module[name.size()] == '.');
}

}  // namespace

std::vector<ModuleExplanation> ExplainPlan(const Plan& plan, const RuleSet* rules,
                                           absl::string_view name) {
  std::vector<ModuleExplanation> explanations;
  for (const PlacedModule& module : plan.modules) {
    if (!IsNamed(module.module, name)) continue;
    ModuleExplanation& explanation = explanations.emplace_back();
    explanation.module = module.module;
    explanation.worker = DeviceText(module);
    explanation.rule = module.rule ? module.rule->location() : "auto";
    if (rules == nullptr) continue;
    for (const Rule& rule : rules->rules) {
      if (!rule.Matches(module.op) || rule.ref == module.rule) continue;
      explanation.shadowed.push_back(rule.ref.location());
    }
  }
  return explanations;
}

}  // namespace dovetail::coordinator
