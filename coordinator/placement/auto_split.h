// AutoSplit: the placement without rules: layers in order over the devices, even by bytes. Pure
// function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_AUTO_SPLIT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_AUTO_SPLIT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace dovetail::coordinator {

// Cuts consecutive items into `num_parts` consecutive parts whose sums, with `first_extra` added to
// the first and `last_extra` to the last part, are as even as can be (least sum of squares).
// Returns the number of the first item of each part; a part may be empty when there are more parts
// than items.
std::vector<int> SplitEvenly(absl::Span<const int64_t> item_bytes, int num_parts,
                             int64_t first_extra, int64_t last_extra);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_AUTO_SPLIT_H_
