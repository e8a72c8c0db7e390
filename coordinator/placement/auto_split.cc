#include "coordinator/placement/auto_split.h"

#include <limits>

#include "base/check.h"

namespace dovetail::coordinator {

std::vector<int> SplitEvenly(absl::Span<const int64_t> item_bytes, int num_parts,
                             int64_t first_extra, int64_t last_extra) {
  DT_CHECK_GT(num_parts, 0);
  const int num_items = static_cast<int>(item_bytes.size());
  std::vector<double> sums(num_items + 1, 0);
  for (int i = 0; i < num_items; ++i) sums[i + 1] = sums[i] + static_cast<double>(item_bytes[i]);
  const auto cost = [&](int part, int begin, int end) {
    double bytes = sums[end] - sums[begin];
    if (part == 0) bytes += static_cast<double>(first_extra);
    if (part == num_parts - 1) bytes += static_cast<double>(last_extra);
    return bytes * bytes;
  };
  // best[p][e]: least cost of the first p + 1 parts holding the first e items; from[p][e]: where
  // part p begins.
  std::vector<std::vector<double>> best(num_parts, std::vector<double>(num_items + 1));
  std::vector<std::vector<int>> from(num_parts, std::vector<int>(num_items + 1, 0));
  for (int end = 0; end <= num_items; ++end) best[0][end] = cost(0, 0, end);
  for (int part = 1; part < num_parts; ++part) {
    for (int end = 0; end <= num_items; ++end) {
      best[part][end] = std::numeric_limits<double>::infinity();
      for (int begin = 0; begin <= end; ++begin) {
        const double total = best[part - 1][begin] + cost(part, begin, end);
        if (total >= best[part][end]) continue;
        best[part][end] = total;
        from[part][end] = begin;
      }
    }
  }
  std::vector<int> begins(num_parts, 0);
  for (int part = num_parts - 1, end = num_items; part > 0; --part) {
    begins[part] = from[part][end];
    end = begins[part];
  }
  return begins;
}

}  // namespace dovetail::coordinator
