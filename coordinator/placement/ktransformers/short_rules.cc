#include "coordinator/placement/ktransformers/short_rules.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "coordinator/placement/ktransformers/lint.h"

namespace dovetail::coordinator::ktransformers {
namespace {

// One rule of our form before it is written.
struct ShortRule {
  std::string layers;  // "0-29"; empty: any
  std::vector<Role> roles;
  std::string device;
};

std::string Layers(const std::vector<int>& layers) {
  const Ranges ranges = ToRanges(layers);
  const std::string text = FormatRanges(ranges);
  return ranges.size() > 1 ? absl::StrCat("[", text, "]") : text;
}

std::string Write(const ShortRule& rule) {
  std::vector<std::string> conditions;
  if (!rule.layers.empty()) conditions.push_back(absl::StrCat("layers: ", rule.layers));
  if (!rule.roles.empty()) {
    const std::string names = absl::StrJoin(rule.roles, ", ", [](std::string* out, Role role) {
      absl::StrAppend(out, RoleName(role));
    });
    conditions.push_back(
        absl::StrCat("role: ", rule.roles.size() > 1 ? absl::StrCat("[", names, "]") : names));
  }
  return absl::StrCat("- match: {", absl::StrJoin(conditions, ", "),
                      "}\n  place: ", rule.device == "cpu" ? "cpu:*" : rule.device, "\n");
}

class Writer {
 public:
  explicit Writer(absl::Span<const RolePlace> places) {
    for (const RolePlace& place : places) {
      if (place.layer < 0) {
        ends_.push_back(place);
        continue;
      }
      layers_of_[place.role].push_back(place.layer);
      if (place.role == Role::kAttention) stage_[place.layer] = place.device;
    }
    for (const RolePlace& place : places) {
      if (place.layer >= 0 && place.role != Role::kAttention &&
          place.device != stage_[place.layer]) {
        apart_[{place.role, place.device}].push_back(place.layer);
      }
    }
  }

  std::vector<ShortRule> Rules() {
    AddApart();
    const std::map<std::string, std::vector<int>> stages = Stages();
    const std::string rest = stages.size() == 1 ? stages.begin()->first : "";
    AddEnds(rest);
    if (!rest.empty()) {
      rules_.push_back({"", {}, rest});
    } else {
      for (const auto& [layers, device] : InOrder(stages)) {
        rules_.push_back({layers, {}, device});
      }
    }
    return std::move(rules_);
  }

 private:
  // Roles with the same layers and device become one rule.
  void AddApart() {
    for (const auto& [key, layers] : apart_) {
      const Role role = key.first;
      const std::string& device = key.second;
      const bool all = layers.size() == layers_of_[role].size();
      const std::string text = all ? "" : Layers(layers);
      const auto same = std::find_if(rules_.begin(), rules_.end(), [&](const ShortRule& rule) {
        return rule.layers == text && rule.device == device;
      });
      if (same == rules_.end()) {
        rules_.push_back({text, {role}, device});
      } else {
        same->roles.push_back(role);
      }
    }
  }

  std::map<std::string, std::vector<int>> Stages() const {
    std::map<std::string, std::vector<int>> stages;
    for (const auto& [layer, device] : stage_) stages[device].push_back(layer);
    return stages;
  }

  static std::vector<std::pair<std::string, std::string>> InOrder(
      const std::map<std::string, std::vector<int>>& stages) {
    std::vector<std::pair<int, std::string>> first;
    for (const auto& [device, layers] : stages) first.emplace_back(layers[0], device);
    std::sort(first.begin(), first.end());
    std::vector<std::pair<std::string, std::string>> ordered;
    for (const auto& [layer, device] : first) {
      ordered.emplace_back(Layers(stages.at(device)), device);
    }
    return ordered;
  }

  // Embedding, norm and lm_head, unless the last rule takes them.
  void AddEnds(const std::string& rest) {
    for (const RolePlace& end : ends_) {
      if (end.device == rest) continue;
      const auto same = std::find_if(rules_.begin(), rules_.end(), [&](const ShortRule& rule) {
        return rule.layers.empty() && rule.device == end.device;
      });
      if (same == rules_.end()) {
        rules_.push_back({"", {end.role}, end.device});
      } else {
        same->roles.push_back(end.role);
      }
    }
  }

  std::vector<RolePlace> ends_;
  std::map<Role, std::vector<int>> layers_of_;
  std::map<int, std::string> stage_;  // where a layer's attention is
  std::map<std::pair<Role, std::string>, std::vector<int>> apart_;
  std::vector<ShortRule> rules_;
};

}  // namespace

ModuleRole RoleOf(const TreeShape& shape, absl::string_view module) {
  if (module == "model.embed_tokens") return {Role::kEmbedding};
  if (module == "model.norm") return {Role::kNorm};
  if (module == "lm_head") return {Role::kLmHead};
  const int layer = LayerOf(module);
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const absl::string_view tail = module.substr(std::min(module.size(), prefix.size()));
  const bool is_norm = absl::StrContains(tail, "norm");
  if (absl::StrContains(tail, "attn") || tail == "input_layernorm") {
    return {Role::kAttention, is_norm};
  }
  const bool moe =
      layer >= 0 && layer < static_cast<int>(shape.has_experts.size()) && shape.has_experts[layer];
  if (!moe) return {Role::kMlp, is_norm};
  const std::string ffn = absl::StrCat(shape.names->ffn, ".");
  if (absl::StartsWith(tail, absl::StrCat(ffn, "experts"))) return {Role::kExperts};
  if (absl::StartsWith(tail, absl::StrCat(ffn, "shared"))) return {Role::kSharedExperts};
  return {Role::kRouter, is_norm};
}

std::vector<RolePlace> RolesOf(const TreeShape& shape, const ModuleTree& tree,
                               const std::function<std::string(absl::string_view)>& device_of,
                               const std::function<int64_t(absl::string_view)>& bytes_of) {
  std::vector<std::pair<Role, int>> order;
  std::map<std::pair<Role, int>, std::map<std::string, int64_t>> votes;
  for (const Module& module : tree.modules) {
    if (!module.owns_weights) continue;
    const ModuleRole role = RoleOf(shape, module.name);
    const std::pair<Role, int> key(role.role, LayerOf(module.name));
    if (votes.count(key) == 0) order.push_back(key);
    const std::string device = device_of(module.name);
    constexpr int64_t kMatrix = 1 << 20;  // without figures, a matrix outweighs any norm
    const int64_t bytes = bytes_of ? bytes_of(module.name) : 0;
    if (!device.empty()) votes[key][device] += bytes > 0 ? bytes : role.is_norm ? 1 : kMatrix;
  }
  std::vector<RolePlace> places;
  for (const auto& key : order) {
    const auto& devices = votes[key];
    if (devices.empty()) continue;
    const auto most =
        std::max_element(devices.begin(), devices.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    places.push_back({key.first, key.second, most->first});
  }
  return places;
}

std::function<std::string(absl::string_view)> DevicesBy(const RuleFile& rules, const RuleMap& map,
                                                        const DeviceMap& device_map) {
  return [&rules, &map, &device_map](absl::string_view module) {
    return device_map.Apply(DeviceOf(rules, *map.FindOwner(module)));
  };
}

std::string ShortRules(absl::Span<const RolePlace> places, absl::string_view comment) {
  std::string text;
  for (absl::string_view line : absl::StrSplit(comment, '\n', absl::SkipEmpty())) {
    absl::StrAppend(&text, "# ", line, "\n");
  }
  for (const ShortRule& rule : Writer(places).Rules()) absl::StrAppend(&text, Write(rule));
  return text;
}

}  // namespace dovetail::coordinator::ktransformers
