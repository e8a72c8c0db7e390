#include "coordinator/placement/ktransformers/rule_file.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/ktransformers/yaml11.h"

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr absl::string_view kRuleKeys[] = {"match", "replace", "recursive"};
constexpr absl::string_view kMatchKeys[] = {"name", "class"};
constexpr absl::string_view kReplaceKeys[] = {"class", "kwargs"};
// What its operators take, with its own spelling: the shipped files' keys first.
constexpr absl::string_view kKwargKeys[] = {
    "generate_device",    "prefill_device", "generate_op",
    "prefill_op",         "out_device",     "per_layer_prefill_intput_threshold",
    "absorb_for_prefill", "transfer_map",   "backend",
    "dump_enable",        "dump_dir",       "device",
    "num_bits",           "group_size",     "act_order",
    "is_k_full",          "block_size",     "stride",
    "group_max_len",      "precision",      "chunck_size",
    "use_quant"};

class Reader {
 public:
  explicit Reader(RuleFile* file) : file_(*file) {}

  void ReadRule(const YamlNode& node) {
    Rule rule;
    rule.index = static_cast<int>(file_.rules.size());
    rule.place = {node.line, node.col};
    if (node.kind != YamlKind::kMap) {
      rule.match_error = Error("bad-rule", node,
                               absl::StrCat("a rule must be a map with `match` "
                                            "and `replace`, got ",
                                            Quoted(node)));
    } else {
      CheckKeys(node, "a rule", kRuleKeys);
      ReadMatch(node, &rule);
      ReadReplace(node, &rule);
      if (const YamlNode* recursive = FindLast(node, "recursive")) {
        rule.recursive = IsTrueInPython(*recursive);
        if (rule.recursive && TextOf(*recursive).has_value()) {
          Warn("odd-value", *recursive,
               absl::StrCat("`recursive` is the text ", Quoted(*recursive),
                            ", which counts as true; write `recursive: False` without quotes"));
        }
      }
    }
    file_.rules.push_back(std::move(rule));
  }

 private:
  Diagnostic Make(Severity severity, absl::string_view code, const YamlNode& at,
                  std::string message) const {
    return {std::string(code), severity, file_.file, at.line, at.col, std::move(message)};
  }
  Diagnostic Error(absl::string_view code, const YamlNode& at, std::string message) const {
    return Make(Severity::kError, code, at, std::move(message));
  }
  void Warn(absl::string_view code, const YamlNode& at, std::string message) {
    file_.diagnostics.push_back(Make(Severity::kWarning, code, at, std::move(message)));
  }

  // Unknown keys are ignored silently there, and the last of two wins.
  void CheckKeys(const YamlNode& map, absl::string_view what,
                 absl::Span<const absl::string_view> known) {
    for (size_t i = 0; i < map.entries.size(); ++i) {
      const YamlEntry& entry = map.entries[i];
      YamlNode at;
      at.line = entry.line;
      at.col = entry.col;
      const auto later = std::find_if(map.entries.begin() + i + 1, map.entries.end(),
                                      [&](const YamlEntry& e) { return e.key == entry.key; });
      if (later != map.entries.end()) {
        Warn("duplicate-key", at,
             absl::StrCat("`", entry.key, "` is given again in line ", later->line,
                          "; that one counts"));
        continue;
      }
      if (std::find(known.begin(), known.end(), entry.key) != known.end()) continue;
      const absl::string_view nearest = NearestName(entry.key, known);
      Warn(
          "unknown-key", at,
          absl::StrCat("unknown key ", Quoted(MakeScalar(entry.key)), " in ", what, " is ignored; ",
                       nearest.empty() ? absl::StrCat("known: ", absl::StrJoin(known, ", "))
                                       : absl::StrCat("did you mean `", nearest, "`?")));
    }
  }

  void ReadMatch(const YamlNode& node, Rule* rule) {
    const YamlNode* match = FindLast(node, "match");
    if (match == nullptr) {
      rule->match_error = Error("no-match", node, "the rule has no `match`");
      return;
    }
    if (match->kind != YamlKind::kMap) {
      rule->match_error = Error(
          "no-match", *match,
          absl::StrCat("`match` must be a map with `name`, `class` or both, got ", Quoted(*match)));
      return;
    }
    CheckKeys(*match, "`match`", kMatchKeys);
    const YamlNode* name = FindLast(*match, "name");
    const YamlNode* match_class = FindLast(*match, "class");
    if (name == nullptr && match_class == nullptr) {
      rule->match_error =
          Error("no-match", *match, "`match` must have at least one of `class` and `name`");
      return;
    }
    if (match_class != nullptr) ReadClass(*match_class, rule);
    if (name != nullptr) ReadName(*name, rule);
  }

  void ReadClass(const YamlNode& node, Rule* rule) {
    rule->match_class_place = {node.line, node.col};
    rule->match_class = TextOf(node).value_or("");
    if (rule->match_class.empty()) {
      rule->match_error =
          Error("bad-class", node,
                absl::StrCat("`class` must be the path of a class, got ", Quoted(node)));
    }
  }

  void ReadName(const YamlNode& node, Rule* rule) {
    rule->name_place = {node.line, node.col};
    rule->name = TextOf(node);
    if (!rule->name) {
      rule->match_error =
          Error("bad-regex", node,
                absl::StrCat("`name` must be a regular expression, got ", Quoted(node)));
      return;
    }
    absl::StatusOr<BoundedRegex> compiled =
        BoundedRegex::Compile(*rule->name, RegexSyntax::kPython);
    if (compiled.ok()) {
      rule->pattern = std::make_shared<const BoundedRegex>(*std::move(compiled));
    } else if (!rule->match_error) {
      rule->match_error = Error(
          "bad-regex", node,
          absl::StrCat("bad regular expression ", Quoted(node), ": ", compiled.status().message()));
    }
  }

  void ReadReplace(const YamlNode& node, Rule* rule) {
    const YamlNode* replace = FindLast(node, "replace");
    if (replace == nullptr || replace->kind == YamlKind::kNull) {
      rule->replace_error =
          Error("no-replace", replace == nullptr ? node : *replace, "the rule has no `replace`");
      return;
    }
    if (replace->kind != YamlKind::kMap) {
      Warn("odd-value", *replace,
           absl::StrCat("`replace` must be a map with `class` and `kwargs`, "
                        "got ",
                        Quoted(*replace),
                        "; KTransformers takes it for `class: default` without "
                        "devices"));
      return;
    }
    CheckKeys(*replace, "`replace`", kReplaceKeys);
    if (const YamlNode* op = FindLast(*replace, "class")) {
      rule->op_place = {op->line, op->col};
      if (const std::optional<std::string> text = TextOf(*op)) {
        rule->op = *text;
      } else {
        rule->replace_error = Error(
            "bad-class", *op,
            absl::StrCat("`class` must be the path of a class or `default`, got ", Quoted(*op)));
      }
    }
    const YamlNode* kwargs = FindLast(*replace, "kwargs");
    if (kwargs == nullptr) return;
    if (kwargs->kind != YamlKind::kMap) {
      Warn("odd-value", *kwargs,
           absl::StrCat("`kwargs` must be a map, got ", Quoted(*kwargs),
                        "; the modules of this rule get no device"));
      return;
    }
    CheckKeys(*kwargs, "`kwargs`", kKwargKeys);
    ReadKwargs(*kwargs, rule);
  }

  // A key keeps its first place and takes its last value, as in a Python dict.
  static void ReadKwargs(const YamlNode& map, Rule* rule) {
    for (const YamlEntry& entry : map.entries) {
      const auto earlier = std::find_if(rule->kwargs.begin(), rule->kwargs.end(),
                                        [&](const YamlEntry& e) { return e.key == entry.key; });
      if (earlier == rule->kwargs.end()) {
        rule->kwargs.push_back(entry);
      } else {
        *earlier = entry;
      }
    }
  }

  RuleFile& file_;
};

}  // namespace

const YamlNode* Rule::Kwarg(absl::string_view key) const {
  for (const YamlEntry& entry : kwargs) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

std::string Rule::Device(absl::string_view key) const {
  const YamlNode* value = Kwarg(key);
  return value == nullptr ? "" : TextOf(*value).value_or("");
}

bool LooksLikeRuleFile(const YamlNode& root) {
  return std::any_of(root.items.begin(), root.items.end(), [](const YamlNode& item) {
    const YamlNode* match = item.Find("match");
    return item.Find("replace") != nullptr ||
           (match != nullptr &&
            (match->Find("name") != nullptr || match->Find("class") != nullptr));
  });
}

RuleFile ReadRuleFile(const YamlNode& root, const std::string& file) {
  RuleFile rule_file;
  rule_file.file = file;
  Reader reader(&rule_file);
  for (const YamlNode& item : root.items) reader.ReadRule(item);
  return rule_file;
}

absl::StatusOr<RuleFile> ParseRuleFile(absl::string_view text, const std::string& file) {
  absl::StatusOr<YamlNode> root = ReadYaml(text, file);
  if (!root.ok()) return root.status();
  if (root->kind != YamlKind::kList) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, root->line > 0 ? absl::StrCat(":", root->line, ":", root->col) : "",
        ": a rules file is a list of rules (- match: ..., replace: ...), got ", Quoted(*root)));
  }
  return ReadRuleFile(*root, file);
}

}  // namespace dovetail::coordinator::ktransformers
