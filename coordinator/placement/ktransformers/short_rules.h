// ShortRules: a placement by role and layer, written in our own form of rules (docs/rules.md).
// RolesOf: that placement, as KTransformers' rules make it. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_SHORT_RULES_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_SHORT_RULES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/placement/device_map.h"
#include "coordinator/placement/ktransformers/module_tree.h"
#include "coordinator/placement/ktransformers/rule_file.h"
#include "coordinator/placement/ktransformers/rule_map.h"
#include "coordinator/placement/ktransformers/tree_shape.h"
#include "coordinator/placement/role.h"

namespace dovetail::coordinator::ktransformers {

struct RolePlace {
  Role role = Role::kEmbedding;
  int layer = -1;  // -1: of no layer
  std::string device;
  bool operator==(const RolePlace&) const = default;
};

// The role of a module that owns weights, and whether it is a norm (which decides nothing).
struct ModuleRole {
  Role role = Role::kEmbedding;
  bool is_norm = false;
};
ModuleRole RoleOf(const TreeShape& shape, absl::string_view module);

// By module, its bytes (or 1 without a model's file) speak for its device; the role goes where most
// are. In execution order.
std::vector<RolePlace> RolesOf(const TreeShape& shape, const ModuleTree& tree,
                               const std::function<std::string(absl::string_view)>& device_of,
                               const std::function<int64_t(absl::string_view)>& bytes_of);

// The device that KTransformers' rules give a module, after --map.
std::function<std::string(absl::string_view)> DevicesBy(const RuleFile& rules, const RuleMap& map,
                                                        const DeviceMap& device_map);

// A rules file of few rules for it: first what is apart from its layer, then the layers. `comment`
// heads the file.
std::string ShortRules(absl::Span<const RolePlace> places, absl::string_view comment);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_SHORT_RULES_H_
