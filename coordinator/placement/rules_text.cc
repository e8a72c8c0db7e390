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

// From the special to the general, so that `mlp` means dense layers where the parts come first.
constexpr Role kRoles[] = {Role::kEmbedding, Role::kAttention, Role::kRouter, Role::kSharedExperts,
                           Role::kExperts,   Role::kMlp,       Role::kNorm,   Role::kLmHead};

Role RoleOf(const Op& op) {
  return *std::find_if(std::begin(kRoles), std::end(kRoles),
                       [&](Role role) { return HasRole(op, role); });
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
      if (std::find(devices_.begin(), devices_.end(), module.device) == devices_.end()) {
        devices_.push_back(module.device);
      }
    }
  }

  std::string Write() {
    std::vector<std::string> rules;
    for (const std::string& device : devices_) {
      for (const Part& part : PartsOn(device)) {
        rules.push_back(absl::StrCat("- match: {", MatchText(part), "}\n  place: ", device, "\n"));
      }
    }
    return absl::StrJoin(rules, "");
  }

 private:
  // Layers in which the device has the same roles are one part; roles outside layers another; some
  // of the experts another.
  std::vector<Part> PartsOn(const std::string& device) const {
    std::map<int, std::set<Role>> roles;
    std::map<int, std::vector<int>> experts;
    for (const ModulePlacement& module : modules_) {
      if (module.device != device) continue;
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
  std::vector<std::string> devices_;  // in order of appearance
  std::map<int, std::set<Role>> roles_of_;
  std::map<int, int> num_experts_;
};

}  // namespace

std::string RulesText(absl::Span<const ModulePlacement> modules) { return Writer(modules).Write(); }

}  // namespace dovetail::coordinator
