#include "coordinator/placement/rule_split.h"

#include <numeric>

#include "base/check.h"

namespace dovetail::coordinator {

std::vector<int> SplitInProportion(absl::Span<const double> sizes,
                                   absl::Span<const double> weights) {
  DT_CHECK(!weights.empty());
  const double all_sizes = std::accumulate(sizes.begin(), sizes.end(), 0.0);
  const double all_weights = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int> runs;
  size_t run = 0;
  double before = 0;  // sizes of the units so far
  double quota = weights[0];
  for (const double size : sizes) {
    // A unit belongs to the run in whose share its middle lies.
    const double middle = (before + size / 2) * all_weights;
    while (run + 1 < weights.size() && middle > quota * all_sizes) quota += weights[++run];
    runs.push_back(static_cast<int>(run));
    before += size;
  }
  return runs;
}

}  // namespace dovetail::coordinator
