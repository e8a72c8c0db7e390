#include "coordinator/placement/rule_set.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/byte_size.h"
#include "base/kv_cache.h"
#include "base/yaml_reader.h"
#include "coordinator/placement/device_info.h"
#include "coordinator/placement/diagnostic.h"
#include "coordinator/placement/ktransformers/as_printed.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/override_tensor.h"
#include "coordinator/placement/rule_reader.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kFileKeys[] = {"devices", "kv", "rules"};
constexpr absl::string_view kBudgetKeys[] = {"memory", "reserve"};
constexpr absl::string_view kKvKeys[] = {"type", "layers"};
constexpr absl::string_view kLayerKvKeys[] = {"layers", "type"};

std::optional<int64_t> ReadBytes(const YamlNode& node, absl::string_view name, Mistakes* mistakes) {
  const absl::StatusOr<int64_t> bytes = ParseBytes(node.scalar);
  if (node.kind == YamlKind::kScalar && bytes.ok()) return *bytes;
  if (node.kind == YamlKind::kScalar && node.scalar == "0") return 0;
  mistakes->Add(node,
                absl::StrCat("`", name, "` must be a size such as 22GiB, got ", Quoted(node)));
  return std::nullopt;
}

void ReadBudgets(const YamlNode& node, RuleSet* set, Mistakes* mistakes) {
  if (node.kind != YamlKind::kMap) {
    mistakes->Add(node, absl::StrCat("`devices` must be a map of devices, as in {cuda:*: {memory: "
                                     "22GiB, reserve: 1GiB}}, got ",
                                     Quoted(node)));
    return;
  }
  std::set<std::string> seen;
  for (const YamlEntry& entry : node.entries) {
    DeviceBudget budget;
    budget.device = entry.key;
    budget.at = {entry.line, entry.col};
    if (!IsDevicePattern(entry.key)) {
      mistakes->Add(entry.line, entry.col,
                    absl::StrCat("`", entry.key,
                                 "` is not a device or a group of devices, such as "
                                 "cuda:0 or cuda:*"));
    } else if (!seen.insert(entry.key).second) {
      mistakes->Add(entry.line, entry.col, absl::StrCat("`", entry.key, "` is given twice"));
    }
    if (!CheckMap(entry.value, absl::StrCat("`", entry.key, "`"), kBudgetKeys, mistakes)) continue;
    if (const YamlNode* memory = entry.value.Find("memory")) {
      budget.memory_bytes = ReadBytes(*memory, "memory", mistakes);
    }
    if (const YamlNode* reserve = entry.value.Find("reserve")) {
      budget.reserve_bytes = ReadBytes(*reserve, "reserve", mistakes);
    }
    set->budgets.push_back(std::move(budget));
  }
}

std::optional<KvType> ReadKvType(const YamlNode& node, Mistakes* mistakes) {
  KvType type;
  if (node.kind == YamlKind::kScalar && FindKvType(node.scalar, &type)) return type;
  mistakes->Add(node, absl::StrCat("`type` must be one of ", kKvTypeNames, ", got ", Quoted(node)));
  return std::nullopt;
}

void ReadLayerKv(const YamlNode& node, RuleSet* set, Mistakes* mistakes) {
  if (!CheckMap(node, "an entry of `kv`", kLayerKvKeys, mistakes)) return;
  const YamlNode* layers = node.Find("layers");
  const YamlNode* type = node.Find("type");
  if (layers == nullptr || type == nullptr) {
    mistakes->Add(node, "an entry of `kv` needs `layers` and `type`");
    return;
  }
  Ranges ranges;
  ReadRanges(*layers, "layers", &ranges, mistakes);
  if (const auto read = ReadKvType(*type, mistakes))
    set->layer_kv_types.emplace_back(ranges, *read);
}

void ReadKv(const YamlNode& node, RuleSet* set, Mistakes* mistakes) {
  if (!CheckMap(node, "`kv`", kKvKeys, mistakes)) return;
  if (const YamlNode* type = node.Find("type")) set->kv_type = ReadKvType(*type, mistakes);
  const YamlNode* layers = node.Find("layers");
  if (layers == nullptr) return;
  if (layers->kind != YamlKind::kList) {
    mistakes->Add(*layers,
                  absl::StrCat("`layers` must be a list such as [{layers: 0-3, type: f32}], "
                               "got ",
                               Quoted(*layers)));
  }
  for (const YamlNode& item : layers->items) ReadLayerKv(item, set, mistakes);
}

// The list of rules: the whole file, or its `rules`.
void ReadRules(const YamlNode& node, RuleSet* set, Mistakes* mistakes) {
  if (node.kind != YamlKind::kList || node.items.empty()) {
    mistakes->Add(node,
                  absl::StrCat("a rules file is a list of rules (- match: ..., place: ...), got ",
                               node.kind == YamlKind::kList ? "an empty one" : Quoted(node)));
    return;
  }
  if (ktransformers::LooksLikeRuleFile(node)) {
    set->ktransformers = std::make_shared<const ktransformers::RuleFile>(
        ktransformers::ReadRuleFile(node, set->file));
    return;
  }
  for (const YamlNode& item : node.items) {
    const int index = static_cast<int>(set->rules.size());
    set->rules.push_back(ReadRule(item, {set->file, item.line, item.col, index}, mistakes));
  }
}

}  // namespace

absl::string_view SplitByName(SplitBy by) {
  constexpr absl::string_view kNames[] = {"layers", "bytes", "experts", "rows"};
  return kNames[static_cast<int>(by)];
}

bool Rule::Matches(const Op& op) const {
  if (!experts.empty()) {
    if (op.kind != OpKind::kExperts) return false;
    for (int32_t e = op.expert_begin; e < op.expert_end; ++e) {
      if (!Contains(experts, e)) return false;
    }
  }
  if (!layers.empty() && !Contains(layers, op.layer)) return false;
  return roles.empty() ||
         std::any_of(roles.begin(), roles.end(), [&](Role role) { return HasRole(op, role); });
}

void ApplyKvTypes(const RuleSet& rules, int num_layers, StepShape* shape) {
  if (rules.kv_type) {
    shape->kv_type = *rules.kv_type;
    shape->layer_kv_types.clear();
  }
  if (rules.layer_kv_types.empty()) return;
  for (int layer = static_cast<int>(shape->layer_kv_types.size()); layer < num_layers; ++layer) {
    shape->layer_kv_types.push_back(shape->kv_type);
  }
  for (const auto& [layers, type] : rules.layer_kv_types) {
    for (int layer = 0; layer < num_layers; ++layer) {
      if (Contains(layers, layer)) shape->layer_kv_types[layer] = type;
    }
  }
}

absl::StatusOr<RuleSet> ParseRules(const std::string& text, const std::string& file_name) {
  absl::StatusOr<YamlNode> root = ReadYaml(text, file_name);
  if (!root.ok()) {
    const auto lost = ktransformers::LostIndentation(text, file_name);
    return lost ? ErrorsToStatus({&*lost, 1}) : root.status();
  }
  Mistakes mistakes(file_name);
  RuleSet set;
  set.file = file_name;
  if (root->kind != YamlKind::kMap) {
    ReadRules(*root, &set, &mistakes);
  } else if (CheckMap(*root, "a rules file", kFileKeys, &mistakes)) {
    if (const YamlNode* devices = root->Find("devices")) ReadBudgets(*devices, &set, &mistakes);
    if (const YamlNode* kv = root->Find("kv")) ReadKv(*kv, &set, &mistakes);
    if (const YamlNode* rules = root->Find("rules")) {
      ReadRules(*rules, &set, &mistakes);
    } else {
      mistakes.Add(*root, "the file has no `rules`: a list of rules (- match: ..., place: ...)");
    }
  }
  if (!mistakes.empty()) return mistakes.ToStatus();
  return set;
}

absl::StatusOr<RuleSet> LoadRules(const std::string& path, const DeviceMap& device_map) {
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
  absl::StatusOr<RuleSet> set = ParseRules(text, path);
  if (!set.ok()) return set;
  set->device_map = device_map;
  for (Rule& rule : set->rules) {
    for (Share& share : rule.shares) {
      share.device = device_map.Apply(share.device);
      if (share.device == "cpu") share.device = "cpu:*";
    }
  }
  return set;
}

absl::StatusOr<RuleSet> RulesOfOverrides(const std::vector<std::string>& arguments,
                                         const DeviceMap& device_map) {
  RuleSet set;
  set.file = "--override-tensor";
  set.device_map = device_map;
  auto overrides = std::make_shared<TensorOverrides>(ParseTensorOverrides(arguments));
  if (absl::Status s = ErrorsToStatus(overrides->diagnostics); !s.ok()) return s;
  set.overrides = std::move(overrides);
  return set;
}

}  // namespace dovetail::coordinator
