// RowSplit: several workers share the output rows of an op, each the rows of one part.
//
// Rows are only ever gathered, never summed: each output element is computed by one worker from all
// of its inputs, so a split changes no bit. Both processes cut with the same function, the worker
// for what it computes and the planner for what that takes. Plain data and pure functions.
#ifndef DOVETAIL_BASE_ROW_SPLIT_H_
#define DOVETAIL_BASE_ROW_SPLIT_H_

#include <array>
#include <cstdint>
#include <vector>

#include "base/range.h"

namespace dovetail {

inline constexpr int kMaxRowMembers = 16;

struct RowSplit {
  int32_t members = 0;  // that share the rows; 0: one worker computes all of them
  int32_t member = 0;   // which of them is meant
  std::array<double, kMaxRowMembers> shares = {};  // of each member, above 0

  bool whole() const { return members == 0; }
  bool operator==(const RowSplit&) const = default;
};

// The rows of each member: [0, rows) in order, cut at multiples of `unit`, as near to the shares as
// whole units allow, and at least one unit each. There must be as many units as members.
std::vector<Range> SplitRows(int64_t rows, int64_t unit, const RowSplit& split);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_ROW_SPLIT_H_
