// Range: the numbers from `begin` up to, and without, `end`. Plain data.
#ifndef DOVETAIL_BASE_RANGE_H_
#define DOVETAIL_BASE_RANGE_H_

#include <cstdint>

namespace dovetail {

struct Range {
  int64_t begin;
  int64_t end;

  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_RANGE_H_
