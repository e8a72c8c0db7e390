// Role: what a module is for, as rules name it; Ranges: layers or experts, as rules list them.
// Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_ROLE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_ROLE_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/route.h"

namespace dovetail::coordinator {

// kMlp is everything between a layer's second norm and the residual stream: a dense mlp, or router,
// experts and shared experts together.
enum class Role { kEmbedding, kAttention, kMlp, kRouter, kExperts, kSharedExperts, kNorm, kLmHead };

absl::string_view RoleName(Role role);            // "shared_experts"
absl::Span<const absl::string_view> RoleNames();  // in the order of the enumeration
std::optional<Role> FindRole(absl::string_view name);
bool HasRole(const Op& op, Role role);
// The most special one: of a part of a layer with experts not kMlp.
Role RoleOf(const Op& op);

using Ranges = std::vector<std::pair<int, int>>;  // both ends belong to a range
bool Contains(const Ranges& ranges, int number);
std::string FormatRanges(const Ranges& ranges);  // "0-3, 8"
Ranges ToRanges(absl::Span<const int> numbers);  // ascending numbers, neighbours joined

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_ROLE_H_
