#include "base/row_split.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace dovetail {

std::vector<Range> SplitRows(int64_t rows, int64_t unit, const RowSplit& split) {
  const int64_t units = (rows + unit - 1) / unit;
  const int n = split.members;
  DT_CHECK(n > 0 && n <= kMaxRowMembers);
  DT_CHECK_GE(units, n);
  double all = 0;
  for (int i = 0; i < n; ++i) all += split.shares[i];
  std::vector<Range> parts;
  int64_t begin = 0;
  double before = 0;  // the shares so far
  for (int i = 0; i < n; ++i) {
    before += split.shares[i];
    const int64_t wanted = std::llround(static_cast<double>(units) * (before / all));
    // One for this member, and one for each that follows.
    const int64_t end = i + 1 == n ? units : std::clamp(wanted, begin + 1, units - (n - 1 - i));
    parts.push_back({begin * unit, std::min(end * unit, rows)});
    begin = end;
  }
  return parts;
}

}  // namespace dovetail
