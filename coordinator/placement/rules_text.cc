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
  // Layers in which the device has the same roles are one part; roles outside layers another.
  std::vector<Part> PartsOn(const std::string& device) const {
    std::map<int, std::set<Role>> roles;
    for (const ModulePlacement& module : modules_) {
      if (module.device == device) roles[module.op.layer].insert(RoleOf(module.op));
    }
    std::vector<Part> parts;
    for (const auto& [layer, layer_roles] : roles) {
      const std::set<Role> named = Named(layer, layer_roles);
      const auto same = std::find_if(parts.begin(), parts.end(), [&](const Part& part) {
        return part.roles == named && part.layers.empty() == (layer < 0);
      });
      if (same != parts.end()) {
        same->layers.insert(layer);
      } else {
        Part part;
        part.roles = named;
        if (layer >= 0) part.layers.insert(layer);
        parts.push_back(std::move(part));
      }
    }
    return parts;
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
    if (!part.roles.empty()) filters.push_back(absl::StrCat("role: ", RolesText(part.roles)));
    return absl::StrJoin(filters, ", ");
  }

  absl::Span<const ModulePlacement> modules_;
  std::vector<std::string> devices_;  // in order of appearance
  std::map<int, std::set<Role>> roles_of_;
};

}  // namespace

std::string RulesText(absl::Span<const ModulePlacement> modules) { return Writer(modules).Write(); }

}  // namespace dovetail::coordinator
