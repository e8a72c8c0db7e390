// WorkShare: [0, total) handed out to threads piece by piece, large pieces first.
//
// Threads that share one phase take pieces until none is left, so that one that is slowed down (a
// busy neighbour, a colder cache) gets less instead of making the others wait. A piece is half of
// what an even division of the rest would give, rounded down to whole grains, at least one: few
// pieces in all, and the last ones small. Which thread takes which piece is left to chance, so
// only work may be shared whose results do not depend on how it is cut.
//
// Made by the one that publishes the phase, on its stack; Take from any thread, lock-free.
#ifndef DOVETAIL_BASE_WORK_SHARE_H_
#define DOVETAIL_BASE_WORK_SHARE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/range.h"

namespace dovetail {

class WorkShare {
 public:
  WorkShare(int64_t total, int64_t grain, int num_threads)
      : total_(total), grain_(grain), num_threads_(num_threads) {}

  // The next piece, or false when nothing is left.
  bool Take(Range* piece) {
    int64_t begin = next_.load(std::memory_order_relaxed);
    int64_t end;
    do {
      if (begin >= total_) return false;
      end = begin + PieceOf(total_ - begin);
    } while (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed));
    *piece = {begin, end};
    return true;
  }

 private:
  int64_t PieceOf(int64_t left) const {
    if (num_threads_ == 1) return left;
    const int64_t grains = left / (2 * num_threads_ * grain_);
    return std::min(left, std::max<int64_t>(grains, 1) * grain_);
  }

  const int64_t total_;
  const int64_t grain_;
  const int num_threads_;
  alignas(64) std::atomic<int64_t> next_{0};
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_WORK_SHARE_H_
