// SplitInProportion: how a rule's modules are divided among its devices. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_RULE_SPLIT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_RULE_SPLIT_H_

#include <vector>

#include "absl/types/span.h"

namespace dovetail::coordinator {

// Cuts units (layers) with these sizes in order into one run for each weight, in proportion: the
// sum of a run's sizes is as near to its weight's share as whole units allow. Sizes are bytes, or
// 1 each to count layers. Returns the run of each unit.
std::vector<int> SplitInProportion(absl::Span<const double> sizes,
                                   absl::Span<const double> weights);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_RULE_SPLIT_H_
