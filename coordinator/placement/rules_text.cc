#include "coordinator/placement/rules_text.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/role.h"

namespace dovetail::coordinator {
namespace {

// What a rule says of the devices.
std::string TargetText(const ModulePlacement& module) {
  if (module.members.empty()) return absl::StrCat("  place: ", module.device, "\n");
  return absl::StrCat("  split: {",
                      absl::StrJoin(module.members, ", ",
                                    [](std::string* out, const Member& member) {
                                      absl::StrAppend(out, member.worker, ": ", member.share);
                                    }),
                      "}\n  by: rows\n");
}

// What a rule places: of these layers (none: modules outside layers) these roles (none: all).
struct Part {
  std::set<int> layers;
  std::set<Role> roles;
  Ranges experts;  // none: all
};

std::string RangesText(const Ranges& ranges) {
  const std::string text = FormatRanges(ranges);
  return ranges.size() == 1 ? text : absl::StrCat("[", text, "]");
}

std::string RolesText(const std::set<Role>& roles) {
  const std::string text = absl::StrJoin(
      roles, ", ", [](std::string* out, Role role) { absl::StrAppend(out, RoleName(role)); });
  return roles.size() == 1 ? text : absl::StrCat("[", text, "]");
}

class Writer {
 public:
  explicit Writer(absl::Span<const ModulePlacement> modules) : modules_(modules) {
    for (const ModulePlacement& module : modules) {
      roles_of_[module.op.layer].insert(RoleOf(module.op));
      num_experts_[module.op.layer] += module.op.expert_end - module.op.expert_begin;
      const std::string target = TargetText(module);
      if (std::find(targets_.begin(), targets_.end(), target) == targets_.end()) {
        targets_.push_back(target);
      }
    }
  }

  std::string Write() {
    std::vector<std::string> rules;
    for (const std::string& target : targets_) {
      for (const Part& part : PartsOn(target)) {
        rules.push_back(absl::StrCat("- match: {", MatchText(part), "}\n", target));
      }
    }
    return absl::StrJoin(rules, "");
  }

 private:
  // Layers in which the target has the same roles are one part; roles outside layers another; some
  // of the experts another.
  std::vector<Part> PartsOn(const std::string& target) const {
    std::map<int, std::set<Role>> roles;
    std::map<int, std::vector<int>> experts;
    for (const ModulePlacement& module : modules_) {
      if (TargetText(module) != target) continue;
      const Op& op = module.op;
      if (op.kind != OpKind::kExperts) roles[op.layer].insert(RoleOf(op));
      for (int e = op.expert_begin; e < op.expert_end; ++e) experts[op.layer].push_back(e);
    }
    std::vector<Part> parts;
    for (auto& [layer, own] : experts) {
      if (static_cast<int>(own.size()) == num_experts_.at(layer)) {
        roles[layer].insert(Role::kExperts);
      } else {
        std::sort(own.begin(), own.end());
        AddLayer(layer, {Role::kExperts}, ToRanges(own), &parts);
      }
    }
    for (const auto& [layer, own] : roles) AddLayer(layer, Named(layer, own), {}, &parts);
    return parts;
  }

  static void AddLayer(int layer, const std::set<Role>& roles, const Ranges& experts,
                       std::vector<Part>* parts) {
    const auto same = std::find_if(parts->begin(), parts->end(), [&](const Part& part) {
      return part.roles == roles && part.experts == experts && part.layers.empty() == (layer < 0);
    });
    if (same != parts->end()) {
      same->layers.insert(layer);
      return;
    }
    Part part{{}, roles, experts};
    if (layer >= 0) part.layers.insert(layer);
    parts->push_back(std::move(part));
  }

  // All roles of a layer need no names.
  std::set<Role> Named(int layer, const std::set<Role>& roles) const {
    if (layer >= 0 && roles == roles_of_.at(layer)) return {};
    return roles;
  }

  static std::string MatchText(const Part& part) {
    std::vector<std::string> filters;
    if (!part.layers.empty()) {
      const std::vector<int> layers(part.layers.begin(), part.layers.end());
      filters.push_back(absl::StrCat("layers: ", RangesText(ToRanges(layers))));
    }
    if (!part.experts.empty()) {
      filters.push_back(absl::StrCat("experts: ", RangesText(part.experts)));
    } else if (!part.roles.empty()) {
      filters.push_back(absl::StrCat("role: ", RolesText(part.roles)));
    }
    return absl::StrJoin(filters, ", ");
  }

  absl::Span<const ModulePlacement> modules_;
  std::vector<std::string> targets_;  // in order of appearance
  std::map<int, std::set<Role>> roles_of_;
  std::map<int, int> num_experts_;
};

}  // namespace

std::string RulesText(absl::Span<const ModulePlacement> modules) { return Writer(modules).Write(); }

}  // namespace dovetail::coordinator
