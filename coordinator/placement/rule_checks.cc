#include "coordinator/placement/rule_checks.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

class Checker {
 public:
  Checker(const model::ModelConfig& config, const RuleSet& rules, absl::Span<const Op> ops,
          absl::Span<const int> deciders, std::vector<Diagnostic>* diagnostics)
      : config_(config), rules_(rules), ops_(ops), deciders_(deciders), out_(*diagnostics) {}

  void Run() {
    for (size_t i = 0; i < rules_.rules.size(); ++i) {
      const Rule& rule = rules_.rules[i];
      if (!CheckLayers(rule) || !CheckExperts(rule)) continue;
      if (CheckReached(static_cast<int>(i))) CheckOverlap(static_cast<int>(i));
    }
    CheckPlaced();
  }

 private:
  void Report(absl::string_view code, Severity severity, SourcePlace at, std::string message) {
    out_.push_back({std::string(code), severity, rules_.file, at.line, at.col, std::move(message)});
  }
  static SourcePlace At(const Rule& rule) { return {rule.ref.line, rule.ref.col}; }

  // False when the rule names layers that the model does not have.
  bool CheckLayers(const Rule& rule) {
    const int num_layers = config_.num_hidden_layers;
    bool fits = true;
    for (const auto& [first, last] : rule.layers) {
      if (last < num_layers) continue;
      fits = false;
      Report("no-such-layer", Severity::kError, rule.layers_at,
             absl::StrCat("the rule names layer ", last, ", but the model has ", num_layers,
                          " layers (0-", num_layers - 1, ")"));
    }
    return fits;
  }

  bool CheckExperts(const Rule& rule) {
    if (rule.experts.empty()) return true;
    const int count = config_.experts.count;
    if (count == 0) {
      Report("no-such-expert", Severity::kError, rule.experts_at,
             "the rule places experts, but the model is dense");
      return false;
    }
    for (const auto& [first, last] : rule.experts) {
      if (last < count) continue;
      Report("no-such-expert", Severity::kError, rule.experts_at,
             absl::StrCat("the rule names expert ", last, ", but the model's layers have ", count,
                          " (0-", count - 1, ")"));
      return false;
    }
    return true;
  }

  // False when no module is left for the rule.
  bool CheckReached(int idx) {
    const Rule& rule = rules_.rules[idx];
    if (std::count(deciders_.begin(), deciders_.end(), idx) > 0) return true;
    std::set<int> winners;
    for (size_t i = 0; i < ops_.size(); ++i) {
      if (rule.Matches(ops_[i])) winners.insert(deciders_[i]);
    }
    if (winners.empty()) {
      Report("never-matches", Severity::kWarning, At(rule),
             "the rule matches no module of the model");
    } else {
      Report("shadowed-rule", Severity::kWarning, At(rule),
             absl::StrCat("the rule never decides: all that it matches is taken by the earlier ",
                          Describe(winners)));
    }
    return false;
  }

  // "rule at line 3", "rules at lines 3 and 5".
  std::string Describe(const std::set<int>& rules) const {
    std::vector<std::string> lines;
    for (const int idx : rules) lines.push_back(absl::StrCat(rules_.rules[idx].ref.line));
    if (lines.size() == 1) return absl::StrCat("rule at line ", lines[0]);
    const std::string last = std::move(lines.back());
    lines.pop_back();
    return absl::StrCat("rules at lines ", absl::StrJoin(lines, ", "), " and ", last);
  }

  // Layers that the rule names for the same roles as an earlier one: probably a number is wrong. A
  // rule for fewer roles or without layers is an exception or the rest, and meant.
  void CheckOverlap(int idx) {
    const Rule& rule = rules_.rules[idx];
    if (rule.layers.empty()) return;
    std::set<int> layers, winners;
    for (size_t i = 0; i < ops_.size(); ++i) {
      const int winner = deciders_[i];
      if (winner == idx || ops_[i].layer < 0 || !rule.Matches(ops_[i])) continue;
      const Rule& earlier = rules_.rules[winner];
      if (earlier.layers.empty() || earlier.roles != rule.roles) continue;
      if (!earlier.experts.empty() || !rule.experts.empty()) continue;
      layers.insert(ops_[i].layer);
      winners.insert(winner);
    }
    if (layers.empty()) return;
    const Ranges ranges = ToRanges(std::vector<int>(layers.begin(), layers.end()));
    Report("layer-overlap", Severity::kWarning, rule.layers_at,
           absl::StrCat(layers.size() == 1 ? "layer " : "layers ", FormatRanges(ranges),
                        layers.size() == 1 ? " belongs" : " belong", " to the earlier ",
                        Describe(winners), " as well, which decides"));
  }

  void CheckPlaced() {
    std::vector<Op> ownerless;
    for (size_t i = 0; i < ops_.size(); ++i) {
      if (deciders_[i] < 0) ownerless.push_back(ops_[i]);
    }
    if (ownerless.empty()) return;
    Report("unplaced", Severity::kError, {},
           absl::StrCat("no rule places ", absl::StrJoin(CollapseModules(config_, ownerless), ", "),
                        "; a last rule `match: {}` takes what is left"));
  }

  const model::ModelConfig& config_;
  const RuleSet& rules_;
  absl::Span<const Op> ops_;
  absl::Span<const int> deciders_;
  std::vector<Diagnostic>& out_;
};

}  // namespace

std::vector<int> DecidingRules(const RuleSet& rules, absl::Span<const Op> ops) {
  std::vector<int> deciders;
  for (const Op& op : ops) {
    const auto rule = std::find_if(rules.rules.begin(), rules.rules.end(),
                                   [&](const Rule& r) { return r.Matches(op); });
    deciders.push_back(rule == rules.rules.end() ? -1
                                                 : static_cast<int>(rule - rules.rules.begin()));
  }
  return deciders;
}

void CheckRules(const model::ModelConfig& config, const RuleSet& rules, absl::Span<const Op> ops,
                absl::Span<const int> deciders, std::vector<Diagnostic>* diagnostics) {
  Checker(config, rules, ops, deciders, diagnostics).Run();
}

}  // namespace dovetail::coordinator
