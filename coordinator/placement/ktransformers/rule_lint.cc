// Rules that decide nothing, and rules that take what another one names.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/role.h"

namespace dovetail::coordinator::ktransformers {
namespace {

// By module of the tree the rule that got it; kNotVisited below a rule that is not recursive.
constexpr int kNotVisited = -2;
std::vector<int> WinnersOf(const ModuleTree& tree, const RuleMap& map) {
  std::vector<int> winners(tree.modules.size(), kNotVisited);
  for (const MapEntry& entry : map.entries) {
    if (winners[entry.module] == kNotVisited) winners[entry.module] = entry.rule;
  }
  return winners;
}

// How often each rule decided.
std::vector<int> HitsOf(const RuleFile& file, const RuleMap& map) {
  std::vector<int> hits(file.rules.size(), 0);
  for (const MapEntry& entry : map.entries) {
    if (entry.rule >= 0) ++hits[entry.rule];
  }
  return hits;
}

class RuleLint {
 public:
  RuleLint(const LintContext& context, std::vector<Diagnostic>* out)
      : context_(context),
        out_(*out),
        winners_(WinnersOf(context.tree, context.map)),
        hits_(HitsOf(context.file, context.map)) {}

  void Run() {
    for (const Rule& rule : context_.file.rules) {
      if (rule.match_error) continue;
      if (hits_[rule.index] == 0) {
        CheckDead(rule);
      } else {
        CheckOverlap(rule);
      }
    }
    SuggestOrder();
  }

 private:
  void Report(absl::string_view code, Severity severity, Place at, std::string message) {
    out_.push_back(
        {std::string(code), severity, context_.file.file, at.line, at.col, std::move(message)});
  }

  void CheckDead(const Rule& rule) {
    std::map<int, int> taken;  // by rule: how many modules
    int not_visited = -1;
    for (size_t i = 0; i < context_.tree.modules.size(); ++i) {
      if (!Fits(context_.tree, context_.tree.modules[i], rule)) continue;
      if (winners_[i] == kNotVisited) {
        if (not_visited < 0) not_visited = static_cast<int>(i);
      } else {
        ++taken[winners_[i]];
      }
    }
    if (!taken.empty()) return ReportShadowed(rule, taken);
    std::string why = not_visited >= 0 ? WhoOwns(not_visited) : WhyNothingFits(rule);
    Report("dead-rule", Severity::kWarning, rule.place,
           absl::StrCat(Describe(rule), " never matches: ", why));
  }

  void ReportShadowed(const Rule& rule, const std::map<int, int>& taken) {
    int total = 0;
    std::vector<std::string> hiders;
    for (const auto& [winner, count] : taken) {
      total += count;
      hiders.push_back(Describe(context_.file.rules[winner]));
    }
    Report("shadowed-rule", Severity::kWarning, rule.place,
           absl::StrCat(Describe(rule), " never matches: ",
                        total == 1 ? "the module" : absl::StrCat("all ", total, " modules"),
                        " that it names ", total == 1 ? "is" : "are", " taken by the earlier ",
                        absl::StrJoin(hiders, " and ")));
  }

  // The rule above a module that the walk did not reach.
  std::string WhoOwns(int module) const {
    const std::string& name = context_.tree.modules[module].name;
    const MapEntry* owner = context_.map.Find(name);
    return absl::StrCat("what it names, such as `", name, "`, lies below `", owner->name,
                        "`, where ", Describe(context_.file.rules[owner->rule]),
                        " says `recursive: False`");
  }

  std::string WhyNothingFits(const Rule& rule) const {
    const auto count = [&](auto fits) {
      return std::count_if(context_.tree.modules.begin(), context_.tree.modules.end(), fits);
    };
    const auto of_class = count([&](const Module& module) {
      return rule.match_class.empty() ||
             IsInstance(context_.tree, context_.tree.classes[module.class_index], rule.match_class);
    });
    if (of_class == 0) return WhyNoClass(rule.match_class);
    const auto of_name = count([&](const Module& module) {
      return rule.pattern != nullptr &&
             rule.pattern->Search(module.name) == BoundedRegex::Result::kMatch;
    });
    if (of_name == 0) return absl::StrCat("no module's name fits `", *rule.name, "`");
    return absl::StrCat(of_name, " modules fit its name and ", of_class,
                        " its class, but none fits both");
  }

  std::string WhyNoClass(const std::string& rule_class) const {
    std::vector<absl::string_view> paths;
    const std::string last = rule_class.substr(rule_class.rfind('.') + 1);
    for (const PythonClass& known : context_.tree.classes) {
      paths.push_back(known.path);
      if (known.path.substr(known.path.rfind('.') + 1) != last) continue;
      return absl::StrCat("no module is a `", rule_class, "`; this model has `", known.path, "`");
    }
    const absl::string_view nearest = NearestName(rule_class, paths);
    return absl::StrCat("no module is a `", rule_class, "`",
                        nearest.empty() ? "" : absl::StrCat("; did you mean `", nearest, "`?"));
  }

  // Two rules of one kind for different devices, of which the second names layers of the first: a
  // number is probably wrong. A rule that names all layers takes what is left, and means it.
  void CheckOverlap(const Rule& rule) {
    std::map<int, std::set<int>> lost;  // to which rule: layers
    std::set<int> named, all;
    for (size_t i = 0; i < context_.tree.modules.size(); ++i) {
      const int winner = winners_[i];
      const int layer = LayerOf(context_.tree.modules[i].name);
      if (layer < 0) continue;
      all.insert(layer);
      if (!Fits(context_.tree, context_.tree.modules[i], rule)) continue;
      named.insert(layer);
      if (winner < 0 || winner >= rule.index) continue;
      if (IsOfOneKind(context_.file.rules[winner], rule)) lost[winner].insert(layer);
    }
    if (named == all) return;
    for (const auto& [winner, layers] : lost) {
      const Ranges ranges = ToRanges(std::vector<int>(layers.begin(), layers.end()));
      Report("layer-overlap", Severity::kWarning, rule.name_place,
             absl::StrCat(Describe(rule), " names ", layers.size() == 1 ? "layer " : "layers ",
                          FormatRanges(ranges), ", which the earlier ",
                          Describe(context_.file.rules[winner]), " has put on ",
                          context_.file.rules[winner].Device("generate_device")));
    }
  }

  static bool IsOfOneKind(const Rule& a, const Rule& b) {
    return a.op == b.op && a.match_class == b.match_class &&
           a.Device("generate_op") == b.Device("generate_op") &&
           CanonicalDevice(a.Device("generate_device")) !=
               CanonicalDevice(b.Device("generate_device"));
  }

  void SuggestOrder() {
    const std::vector<int> order = BetterOrder(context_.tree, context_.file, context_.map);
    if (order.empty()) return;
    const std::string rules = absl::StrJoin(order, ", ");
    for (const Rule& rule : context_.file.rules) {
      if (rule.match_error || hits_[rule.index] > 0) continue;
      Report("better-order", Severity::kNote, rule.place,
             absl::StrCat("in the order ", rules,
                          " every rule matches (0 is the first of the file); "
                          "put narrow rules before broad ones"));
      return;
    }
  }

  const LintContext& context_;
  std::vector<Diagnostic>& out_;
  const std::vector<int> winners_;
  const std::vector<int> hits_;
};

// Rules that decide nothing though modules fit them, with the first rule that takes one of these.
std::map<int, int> HiddenBy(const ModuleTree& tree, const RuleFile& file, const RuleMap& map) {
  const std::vector<int> winners = WinnersOf(tree, map);
  const std::vector<int> hits = HitsOf(file, map);
  std::map<int, int> hidden;
  for (const Rule& rule : file.rules) {
    if (hits[rule.index] > 0 || rule.match_error) continue;
    for (size_t i = 0; i < tree.modules.size(); ++i) {
      if (winners[i] < 0 || !Fits(tree, tree.modules[i], rule)) continue;
      const auto it = hidden.try_emplace(rule.index, winners[i]).first;
      it->second = std::min(it->second, winners[i]);
    }
  }
  return hidden;
}

}  // namespace

std::vector<int> BetterOrder(const ModuleTree& tree, const RuleFile& file, const RuleMap& map) {
  const std::map<int, int> hidden = HiddenBy(tree, file, map);
  if (hidden.empty()) return {};
  std::vector<int> order;
  for (const Rule& rule : file.rules) order.push_back(rule.index);
  for (const auto& [rule, hider] : hidden) {
    order.erase(std::find(order.begin(), order.end(), rule));
    order.insert(std::find(order.begin(), order.end(), hider), rule);
  }
  RuleFile reordered;
  reordered.file = file.file;
  for (const int index : order) {
    reordered.rules.push_back(file.rules[index]);
    reordered.rules.back().index = static_cast<int>(reordered.rules.size()) - 1;
  }
  const RuleMap better = MapModules(tree, reordered);
  // Worth saying if it frees the hidden rules and hides no others.
  return HiddenBy(tree, reordered, better).empty() ? order : std::vector<int>();
}

void LintRules(const LintContext& context, std::vector<Diagnostic>* out) {
  if (!context.map.entries.empty()) RuleLint(context, out).Run();
}

}  // namespace dovetail::coordinator::ktransformers
