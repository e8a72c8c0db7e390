#include "coordinator/placement/rule_set.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/yaml_reader.h"

namespace dovetail::coordinator {
namespace {

constexpr int kLargestNumber = 99'999;  // of a layer or an expert
constexpr absl::string_view kRuleKeys[] = {"match", "place"};
constexpr absl::string_view kMatchKeys[] = {"layers", "role", "experts"};
constexpr absl::string_view kRoles[] = {"embedding", "attention", "mlp",     "norm",
                                        "lm_head",   "router",    "experts", "shared_experts"};
constexpr OpKind kRoleKinds[] = {OpKind::kEmbedding, OpKind::kAttention,    OpKind::kMlp,
                                 OpKind::kNorm,      OpKind::kLmHead,       OpKind::kRouter,
                                 OpKind::kExperts,   OpKind::kSharedExperts};

bool ParseNumber(absl::string_view text, int* number) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), absl::ascii_isdigit)) return false;
  return absl::SimpleAtoi(text, number) && *number <= kLargestNumber;
}

// One of "5" and "0-14".
void ParseRange(const YamlNode& node, absl::string_view key,
                std::vector<std::pair<int, int>>* ranges, Mistakes* mistakes) {
  const auto complain = [&] {
    mistakes->Add(
        node, absl::StrCat("`", key, "` must be a number (5), a range (0-14) or a list of these",
                           ", got ", Quoted(node)));
  };
  if (node.kind != YamlKind::kScalar) return complain();
  const absl::string_view text = node.scalar;
  const size_t dash = text.find('-');
  int first = 0;
  int last = 0;
  if (!ParseNumber(text.substr(0, dash), &first)) return complain();
  last = first;
  if (dash != absl::string_view::npos && !ParseNumber(text.substr(dash + 1), &last)) {
    return complain();
  }
  if (first > last) {
    mistakes->Add(node, absl::StrCat("`", key, "` has the range ", first, "-", last,
                                     " backwards; did you mean ", last, "-", first, "?"));
    return;
  }
  ranges->emplace_back(first, last);
}

void ParseRanges(const YamlNode& node, absl::string_view key,
                 std::vector<std::pair<int, int>>* ranges, Mistakes* mistakes) {
  if (node.kind != YamlKind::kList) return ParseRange(node, key, ranges, mistakes);
  if (node.items.empty()) mistakes->Add(node, absl::StrCat("`", key, "` is an empty list"));
  for (const YamlNode& item : node.items) ParseRange(item, key, ranges, mistakes);
}

void ParseRole(const YamlNode& node, std::vector<OpKind>* roles, Mistakes* mistakes) {
  const auto* end = std::end(kRoles);
  const auto* role = node.kind == YamlKind::kScalar ? std::find(kRoles, end, node.scalar) : end;
  if (role != end) {
    roles->push_back(kRoleKinds[role - kRoles]);
    return;
  }
  const absl::string_view nearest =
      node.kind == YamlKind::kScalar ? NearestName(node.scalar, kRoles) : "";
  mistakes->Add(node,
                absl::StrCat("unknown role ", Quoted(node), "; ",
                             nearest.empty() ? absl::StrCat("known: ", absl::StrJoin(kRoles, ", "))
                                             : absl::StrCat("did you mean `", nearest, "`?")));
}

void ParseMatch(const YamlNode& node, Rule* rule, Mistakes* mistakes) {
  if (!CheckMap(node, "`match`", kMatchKeys, mistakes)) return;
  if (const YamlNode* layers = node.Find("layers")) {
    rule->layers_location = mistakes->Where(*layers);
    ParseRanges(*layers, "layers", &rule->layers, mistakes);
  }
  if (const YamlNode* role = node.Find("role")) {
    if (role->kind == YamlKind::kList) {
      if (role->items.empty()) mistakes->Add(*role, "`role` is an empty list");
      for (const YamlNode& item : role->items) ParseRole(item, &rule->roles, mistakes);
    } else {
      ParseRole(*role, &rule->roles, mistakes);
    }
  }
  if (const YamlNode* experts = node.Find("experts")) {
    ParseRanges(*experts, "experts", &rule->experts, mistakes);
    const bool fits = std::all_of(rule->roles.begin(), rule->roles.end(), [](OpKind kind) {
      return kind == OpKind::kMlp || kind == OpKind::kExperts;
    });
    if (!fits) {
      mistakes->Add(*experts, "`experts` go with the roles `experts` and `mlp`, and no other");
    }
  }
}

void ParseRule(const YamlNode& node, RuleSet* rule_set, Mistakes* mistakes) {
  if (!CheckMap(node, "a rule", kRuleKeys, mistakes)) return;
  Rule rule;
  rule.location = mistakes->Where(node);
  if (const YamlNode* match = node.Find("match")) {
    ParseMatch(*match, &rule, mistakes);
  } else {
    mistakes->Add(node, "the rule has no `match`; `match: {}` matches every module");
  }
  if (const YamlNode* place = node.Find("place")) {
    rule.place_location = mistakes->Where(*place);
    rule.place = ReadText(*place, "place", mistakes).value_or("");
  } else {
    mistakes->Add(node, "the rule has no `place`; name a worker, as in `place: cpu:0`");
  }
  rule_set->rules.push_back(std::move(rule));
}

bool LooksLikeKTransformers(const YamlNode& root) {
  return std::any_of(root.items.begin(), root.items.end(), [](const YamlNode& item) {
    const YamlNode* match = item.Find("match");
    return item.Find("replace") != nullptr ||
           (match != nullptr &&
            (match->Find("name") != nullptr || match->Find("class") != nullptr));
  });
}

bool Contains(const std::vector<std::pair<int, int>>& ranges, int number) {
  return std::any_of(ranges.begin(), ranges.end(), [number](const std::pair<int, int>& range) {
    return range.first <= number && number <= range.second;
  });
}

}  // namespace

bool Rule::Matches(const Op& op) const {
  if (!experts.empty()) {
    if (op.kind != OpKind::kExperts) return false;
    for (int32_t e = op.expert_begin; e < op.expert_end; ++e) {
      if (!Contains(experts, e)) return false;
    }
  }
  if (!layers.empty() && !Contains(layers, op.layer)) return false;
  return roles.empty() || std::any_of(roles.begin(), roles.end(), [&](OpKind role) {
           return role == op.kind || (role == OpKind::kMlp && IsExpertPart(op.kind));
         });
}

absl::StatusOr<RuleSet> ParseRules(const std::string& text, const std::string& file_name) {
  absl::StatusOr<YamlNode> root = ReadYaml(text, file_name);
  if (!root.ok()) return root.status();
  Mistakes mistakes(file_name);
  RuleSet rule_set;
  rule_set.file = file_name;
  if (root->kind != YamlKind::kList || root->items.empty()) {
    mistakes.Add(*root,
                 absl::StrCat("a rules file is a list of rules (- match: ..., place: ...), got ",
                              root->kind == YamlKind::kList ? "an empty one" : Quoted(*root)));
    return mistakes.ToStatus();
  }
  if (LooksLikeKTransformers(*root)) {
    mistakes.Add(
        *root,
        "this is a KTransformers rules file (match name/class, replace); reading these comes with "
        "a "
        "later version of Dovetail. Today's form is `- match: {layers: 0-14}` with `place: cpu:0`");
    return mistakes.ToStatus();
  }
  for (const YamlNode& item : root->items) ParseRule(item, &rule_set, &mistakes);
  if (!mistakes.empty()) return mistakes.ToStatus();
  return rule_set;
}

absl::StatusOr<RuleSet> LoadRules(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  // A directory opens, but nothing can be read from it.
  if (!in.good() || (in.peek(), in.bad())) {
    return absl::NotFoundError(absl::StrCat(path, ": the rules file cannot be read"));
  }
  in.clear();
  std::string text;
  constexpr size_t kMostBytes = (1 << 20) + 1;  // one more than ReadYaml takes: it says so
  text.resize(kMostBytes);
  in.read(text.data(), kMostBytes);
  text.resize(static_cast<size_t>(in.gcount()));
  return ParseRules(text, path);
}

}  // namespace dovetail::coordinator
