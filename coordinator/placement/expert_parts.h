// The experts of a layer on several workers: cutting them into ranges, and the order in which a
// route comes to the ranges. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_EXPERT_PARTS_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_EXPERT_PARTS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/route.h"

namespace dovetail::coordinator {

// The ops, with those of experts cut where `owner` of two neighbouring experts differs. It is asked
// with ops of one expert each.
std::vector<Op> DivideExperts(absl::Span<const Op> ops, const std::function<int(const Op&)>& owner);

// The order in which to compute `ops` that lie on `workers`: as given, but for the ranges of
// experts of a layer. Those of one worker come one after another, those of the worker before them
// first, and those of the worker after them last, so that a step makes few hops.
std::vector<size_t> OrderForFewHops(absl::Span<const Op> ops,
                                    absl::Span<const std::string> workers);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_EXPERT_PARTS_H_
