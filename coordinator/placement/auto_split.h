// SplitRuns: layers in order over devices in order, within budgets. Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_AUTO_SPLIT_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_AUTO_SPLIT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace dovetail::coordinator {

struct SplitItem {
  int64_t bytes = 0;       // that it takes
  double work = 0;         // bytes that it reads for a token
  double prompt_work = 0;  // multiplications for a token of a prompt

  SplitItem& operator+=(const SplitItem& other) {
    bytes += other.bytes;
    work += other.work;
    prompt_work += other.prompt_work;
    return *this;
  }
};

struct SplitDevice {
  int64_t room = 0;
  double speed = 1;         // bytes per second
  double prompt_speed = 1;  // multiplications per second
  SplitItem extra;          // that it has anyway
};

struct Split {
  std::vector<int> begins;  // the number of the first item of each run; a run may be empty
  bool fits = false;
};

// Cuts the items into one consecutive run for each device so that every run fits and the times that
// the devices take are as even as can be: the least sum of squares, of decoding and of prompts,
// each as a share of what all devices together would take. Where nothing fits, the most even split
// of all.
Split SplitRuns(absl::Span<const SplitItem> items, absl::Span<const SplitDevice> devices);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_AUTO_SPLIT_H_
