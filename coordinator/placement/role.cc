#include "coordinator/placement/role.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kNames[] = {"embedding", "attention",      "mlp",  "router",
                                        "experts",   "shared_experts", "norm", "lm_head"};

// From the special to the general, so that `mlp` means dense layers where the parts come first.
constexpr Role kBySpeciality[] = {Role::kEmbedding,     Role::kAttention, Role::kRouter,
                                  Role::kSharedExperts, Role::kExperts,   Role::kMlp,
                                  Role::kNorm,          Role::kLmHead};

}  // namespace

absl::string_view RoleName(Role role) { return kNames[static_cast<int>(role)]; }

absl::Span<const absl::string_view> RoleNames() { return kNames; }

std::optional<Role> FindRole(absl::string_view name) {
  const auto* at = std::find(std::begin(kNames), std::end(kNames), name);
  if (at == std::end(kNames)) return std::nullopt;
  return static_cast<Role>(at - kNames);
}

bool HasRole(const Op& op, Role role) {
  switch (op.kind) {
    case OpKind::kEmbedding:
      return role == Role::kEmbedding;
    case OpKind::kAttention:
      return role == Role::kAttention;
    case OpKind::kMlp:
      return role == Role::kMlp;
    case OpKind::kRouter:
      return role == Role::kRouter || role == Role::kMlp;
    case OpKind::kSharedExperts:
      return role == Role::kSharedExperts || role == Role::kMlp;
    case OpKind::kExperts:
      return role == Role::kExperts || role == Role::kMlp;
    case OpKind::kNorm:
      return role == Role::kNorm;
    case OpKind::kLmHead:
      return role == Role::kLmHead;
  }
  return false;
}

Role RoleOf(const Op& op) {
  return *std::find_if(std::begin(kBySpeciality), std::end(kBySpeciality),
                       [&](Role role) { return HasRole(op, role); });
}

bool Contains(const Ranges& ranges, int number) {
  return std::any_of(ranges.begin(), ranges.end(), [number](const std::pair<int, int>& range) {
    return range.first <= number && number <= range.second;
  });
}

std::string FormatRanges(const Ranges& ranges) {
  return absl::StrJoin(ranges, ", ", [](std::string* out, const std::pair<int, int>& range) {
    absl::StrAppend(out, range.first);
    if (range.second != range.first) absl::StrAppend(out, "-", range.second);
  });
}

Ranges ToRanges(absl::Span<const int> numbers) {
  Ranges ranges;
  for (const int number : numbers) {
    if (!ranges.empty() && ranges.back().second + 1 >= number) {
      ranges.back().second = number;
    } else {
      ranges.emplace_back(number, number);
    }
  }
  return ranges;
}

}  // namespace dovetail::coordinator
