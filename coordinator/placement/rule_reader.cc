#include "coordinator/placement/rule_reader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/op_choice.h"

namespace dovetail::coordinator {
namespace {

constexpr int kLargestNumber = 99'999;  // of a layer or an expert
constexpr double kLargestWeight = 1e15;
constexpr absl::string_view kRuleKeys[] = {"match", "place", "split", "by", "op"};
constexpr absl::string_view kMatchKeys[] = {"layers", "role", "experts"};

// "`x`; did you mean `y`?", or the list of what there is.
std::string Suggest(const YamlNode& node, absl::Span<const absl::string_view> known) {
  const absl::string_view nearest =
      node.kind == YamlKind::kScalar ? NearestName(node.scalar, known) : "";
  return absl::StrCat(Quoted(node), "; ",
                      nearest.empty() ? absl::StrCat("known: ", absl::StrJoin(known, ", "))
                                      : absl::StrCat("did you mean `", nearest, "`?"));
}

bool ParseNumber(absl::string_view text, int* number) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), absl::ascii_isdigit)) return false;
  return absl::SimpleAtoi(text, number) && *number <= kLargestNumber;
}

// One of "5" and "0-14".
void ParseRange(const YamlNode& node, absl::string_view text, absl::string_view key, Ranges* ranges,
                Mistakes* mistakes) {
  const auto complain = [&] {
    mistakes->Add(
        node, absl::StrCat("`", key, "` must be a number (5), a range (0-14) or a list of these",
                           ", got ", Quoted(node)));
  };
  if (node.kind != YamlKind::kScalar) return complain();
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

void ParseRanges(const YamlNode& node, absl::string_view key, Ranges* ranges, Mistakes* mistakes) {
  if (node.kind != YamlKind::kList) {
    return ParseRange(node, node.scalar, key, ranges, mistakes);
  }
  if (node.items.empty()) mistakes->Add(node, absl::StrCat("`", key, "` is an empty list"));
  for (const YamlNode& item : node.items) ParseRange(item, item.scalar, key, ranges, mistakes);
}

// Experts by number; "hot:32" means the most used ones, which nobody counts yet.
void ParseExperts(const YamlNode& node, absl::string_view text, Ranges* experts,
                  Mistakes* mistakes) {
  if (node.kind == YamlKind::kScalar && absl::StartsWith(text, "hot")) {
    mistakes->Add(node, absl::StrCat("`experts: ", text.substr(0, 40),
                                     "` needs statistics of which experts are used, and there are "
                                     "none yet; name experts by number, as in 0-31"));
    return;
  }
  if (node.kind == YamlKind::kScalar) {
    ParseRange(node, text, "experts", experts, mistakes);
  } else {
    ParseRanges(node, "experts", experts, mistakes);
  }
}

// "attention", or with a subset "experts[0-31]".
void ParseRole(const YamlNode& node, Rule* rule, Mistakes* mistakes) {
  if (node.kind == YamlKind::kScalar) {
    absl::string_view name = node.scalar;
    const size_t bracket = name.find('[');
    if (absl::StartsWith(name, "experts[") && absl::EndsWith(name, "]")) {
      rule->experts_at = {node.line, node.col};
      ParseExperts(node, name.substr(bracket + 1, name.size() - bracket - 2), &rule->experts,
                   mistakes);
      name = name.substr(0, bracket);
    }
    if (const std::optional<Role> role = FindRole(name)) {
      rule->roles.push_back(*role);
      return;
    }
  }
  mistakes->Add(node, absl::StrCat("unknown role ", Suggest(node, RoleNames())));
}

void ParseMatch(const YamlNode& node, Rule* rule, Mistakes* mistakes) {
  if (!CheckMap(node, "`match`", kMatchKeys, mistakes)) return;
  if (const YamlNode* layers = node.Find("layers")) {
    rule->layers_at = {layers->line, layers->col};
    ParseRanges(*layers, "layers", &rule->layers, mistakes);
  }
  if (const YamlNode* role = node.Find("role")) {
    if (role->kind == YamlKind::kList) {
      if (role->items.empty()) mistakes->Add(*role, "`role` is an empty list");
      for (const YamlNode& item : role->items) ParseRole(item, rule, mistakes);
    } else {
      ParseRole(*role, rule, mistakes);
    }
  }
  if (const YamlNode* experts = node.Find("experts")) {
    rule->experts_at = {experts->line, experts->col};
    ParseExperts(*experts, experts->scalar, &rule->experts, mistakes);
  }
  if (rule->experts_at.line == 0) return;
  const bool experts_only = std::all_of(rule->roles.begin(), rule->roles.end(), [](Role role) {
    return role == Role::kExperts || role == Role::kMlp;
  });
  rule->roles = {Role::kExperts};
  if (experts_only) return;
  mistakes->Add(rule->experts_at.line, rule->experts_at.col,
                "`experts` go with the roles `experts` and `mlp`, and no other");
}

void CheckDevice(absl::string_view name, int line, int col, Mistakes* mistakes) {
  if (IsDevicePattern(name)) return;
  mistakes->Add(line, col,
                absl::StrCat("`", name,
                             "` is not a device or a group of devices, such as cpu:0, "
                             "cuda:*, numa:1 or host-b/cuda:0"));
}

void ParsePlace(const YamlNode& node, Rule* rule, Mistakes* mistakes) {
  const std::optional<std::string> name = ReadText(node, "place", mistakes);
  if (!name) return;
  CheckDevice(*name, node.line, node.col, mistakes);
  rule->shares.push_back({*name, 0, {node.line, node.col}});
}

// {cuda:0: 24, cuda:1: 37}, or a list of devices that share evenly.
void ParseSplit(const YamlNode& node, Rule* rule, Mistakes* mistakes) {
  if (node.kind == YamlKind::kList && !node.items.empty()) {
    for (const YamlNode& item : node.items) ParsePlace(item, rule, mistakes);
    return;
  }
  if (node.kind != YamlKind::kMap || node.entries.empty()) {
    mistakes->Add(node, absl::StrCat("`split` must say how much each device takes, as in {cuda:0: "
                                     "24, cuda:1: 37}, got ",
                                     node.kind == YamlKind::kScalar ? Quoted(node) : "nothing"));
    return;
  }
  for (const YamlEntry& entry : node.entries) {
    CheckDevice(entry.key, entry.line, entry.col, mistakes);
    double weight = 0;
    if (entry.value.kind != YamlKind::kScalar || !absl::SimpleAtod(entry.value.scalar, &weight) ||
        !(weight > 0) || weight > kLargestWeight) {
      mistakes->Add(entry.value,
                    absl::StrCat("`split` of ", entry.key, " must be a number above 0, got ",
                                 Quoted(entry.value)));
    }
    const bool twice = std::any_of(rule->shares.begin(), rule->shares.end(),
                                   [&](const Share& share) { return share.device == entry.key; });
    if (twice) {
      mistakes->Add(entry.line, entry.col, absl::StrCat("`split` names ", entry.key, " twice"));
    }
    rule->shares.push_back({entry.key, weight, {entry.line, entry.col}});
  }
}

void ParseBy(const YamlNode& node, Rule* rule, Mistakes* mistakes) {
  rule->by_at = {node.line, node.col};
  for (const SplitBy by : {SplitBy::kLayers, SplitBy::kBytes, SplitBy::kExperts, SplitBy::kRows}) {
    if (node.kind != YamlKind::kScalar || node.scalar != SplitByName(by)) continue;
    rule->by = by;
    return;
  }
  mistakes->Add(node,
                absl::StrCat("`by` must be layers, bytes, experts or rows, got ", Quoted(node)));
}

void ParseTarget(const YamlNode& node, Rule* rule, Mistakes* mistakes) {
  const YamlNode* place = node.Find("place");
  const YamlNode* split = node.Find("split");
  const YamlNode* by = node.Find("by");
  if (place != nullptr && split != nullptr) {
    mistakes->Add(*split, "the rule has both `place` and `split`; give one of them");
  } else if (place != nullptr) {
    ParsePlace(*place, rule, mistakes);
  } else if (split != nullptr) {
    rule->by = SplitBy::kLayers;
    ParseSplit(*split, rule, mistakes);
  } else {
    mistakes->Add(node, "the rule has no `place`; name a worker, as in `place: cpu:0`");
  }
  if (by != nullptr) ParseBy(*by, rule, mistakes);
}

}  // namespace

void ReadRanges(const YamlNode& node, absl::string_view key, Ranges* ranges, Mistakes* mistakes) {
  ParseRanges(node, key, ranges, mistakes);
}

Rule ReadRule(const YamlNode& node, RuleRef ref, Mistakes* mistakes) {
  Rule rule;
  rule.ref = std::move(ref);
  if (!CheckMap(node, "a rule", kRuleKeys, mistakes)) return rule;
  if (const YamlNode* match = node.Find("match")) {
    ParseMatch(*match, &rule, mistakes);
  } else {
    mistakes->Add(node, "the rule has no `match`; `match: {}` matches every module");
  }
  ParseTarget(node, &rule, mistakes);
  if (const YamlNode* op = node.Find("op")) {
    rule.op_at = {op->line, op->col};
    if (op->kind == YamlKind::kScalar && FindKernel(op->scalar).has_value()) {
      rule.op = op->scalar;
    } else {
      mistakes->Add(*op, absl::StrCat("unknown op ", Suggest(*op, KernelNames())));
    }
  }
  return rule;
}

}  // namespace dovetail::coordinator
