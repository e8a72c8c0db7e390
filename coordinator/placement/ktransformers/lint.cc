#include "coordinator/placement/ktransformers/lint.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/role.h"

namespace dovetail::coordinator::ktransformers {

std::vector<Diagnostic> Lint(const LintContext& context) {
  std::vector<Diagnostic> out = context.file.diagnostics;
  out.insert(out.end(), context.map.errors.begin(), context.map.errors.end());
  for (const Rule& rule : context.file.rules) {
    for (const auto& error : {rule.match_error, rule.replace_error}) {
      if (error) out.push_back(*error);
    }
  }
  LintRules(context, &out);
  LintModules(context, &out);
  LintOps(context, &out);
  SortDiagnostics(&out);
  return out;
}

std::string CanonicalDevice(absl::string_view device) {
  const bool is_first = device == "cuda" || device == "npu" || device == "xpu";
  return absl::StrCat(device, is_first ? ":0" : "");
}

std::string DeviceOf(const RuleFile& file, const MapEntry& entry) {
  if (entry.rule < 0) return std::string(kDefaultDevice);
  return CanonicalDevice(file.rules[entry.rule].Device("generate_device"));
}

std::string Describe(const Rule& rule) {
  return absl::StrCat("rule ", rule.index, " (line ", rule.place.line, ")");
}

int LayerOf(absl::string_view module) {
  if (!absl::ConsumePrefix(&module, "model.layers.")) return -1;
  int layer = -1;
  return absl::SimpleAtoi(module.substr(0, module.find('.')), &layer) ? layer : -1;
}

std::string JoinModules(absl::Span<const std::string> names) {
  // What follows the layer's number -> its layers; then the same layers -> all that follows.
  std::vector<std::string> parts;
  std::map<std::string, std::vector<int>> layers_of;
  std::vector<std::string> order;
  for (const std::string& name : names) {
    const int layer = LayerOf(name);
    if (layer < 0) {
      parts.push_back(name);
      continue;
    }
    const std::string prefix = absl::StrCat("model.layers.", layer);
    const std::string tail = name.size() > prefix.size() ? name.substr(prefix.size() + 1) : "";
    auto [it, is_new] = layers_of.try_emplace(tail);
    if (is_new) order.push_back(tail);
    it->second.push_back(layer);
  }
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;
  for (const std::string& tail : order) {
    std::vector<int> layers = layers_of[tail];
    std::sort(layers.begin(), layers.end());
    layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
    const std::string ranges = FormatRanges(ToRanges(layers));
    const auto group = std::find_if(groups.begin(), groups.end(),
                                    [&](const auto& g) { return g.first == ranges; });
    if (group == groups.end()) {
      groups.push_back({ranges, {tail}});
    } else {
      group->second.push_back(tail);
    }
  }
  std::vector<std::string> shown;
  for (const auto& [ranges, tails] : groups) {
    const std::string inner = absl::StrJoin(tails, ", ");
    shown.push_back(absl::StrCat("model.layers.", ranges, inner.empty() ? "" : ".",
                                 tails.size() > 1 ? absl::StrCat("{", inner, "}") : inner));
  }
  shown.insert(shown.end(), parts.begin(), parts.end());
  constexpr size_t kMostShown = 8;
  const size_t more = shown.size() - std::min(shown.size(), kMostShown);
  shown.resize(shown.size() - more);
  return absl::StrCat(absl::StrJoin(shown, ", "),
                      more > 0 ? absl::StrCat(" and ", more, " more") : "");
}

}  // namespace dovetail::coordinator::ktransformers
