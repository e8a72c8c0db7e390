#include "coordinator/placement/ktransformers/lint_file.h"

#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/ktransformers/as_printed.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/rule_set.h"

namespace dovetail::coordinator::ktransformers {
namespace {

// "file:3:5: message" of a status as a diagnostic each.
std::vector<Diagnostic> FromStatus(const absl::Status& status, const std::string& file,
                                   absl::string_view code) {
  std::vector<Diagnostic> out;
  for (absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    Diagnostic d{std::string(code), Severity::kError, file, 0, 0, ""};
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, absl::StrCat(file, ":"))) {
      if (!out.empty()) {  // a message that quotes several lines
        absl::StrAppend(&out.back().message, "\n", line);
        continue;
      }
    } else {
      const std::vector<absl::string_view> parts = absl::StrSplit(rest, absl::MaxSplits(':', 2));
      if (parts.size() == 3 && absl::SimpleAtoi(parts[0], &d.line) &&
          absl::SimpleAtoi(parts[1], &d.col)) {
        rest = parts[2];
      } else {
        d.line = 0;
      }
    }
    d.message = std::string(absl::StripPrefix(rest, " "));
    out.push_back(std::move(d));
  }
  return out;
}

}  // namespace

std::vector<Diagnostic> LintText(const std::string& text, const std::string& file,
                                 const LintTarget& target) {
  const absl::StatusOr<YamlNode> root = ReadYaml(text, file);
  if (!root.ok()) {
    if (const std::optional<Diagnostic> lost = LostIndentation(text, file)) return {*lost};
    return FromStatus(root.status(), file, "bad-yaml");
  }
  if (root->kind != YamlKind::kList || !LooksLikeRuleFile(*root)) {
    const absl::Status own = ParseRules(text, file).status();
    return own.ok() ? std::vector<Diagnostic>() : FromStatus(own, file, "bad-rules");
  }
  const RuleFile rules = ReadRuleFile(*root, file);
  const ModuleTree none;
  const ModuleTree& tree = target.tree == nullptr ? none : *target.tree;
  const RuleMap map = MapModules(tree, rules);
  return Lint(
      {rules, tree, map, target.device_map, target.devices, target.hidden_size, target.bytes_of});
}

}  // namespace dovetail::coordinator::ktransformers
