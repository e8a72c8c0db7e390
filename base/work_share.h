// WorkShare: [0, total) shared by the threads of one phase, so that none waits long for another.
//
// Each thread has a part of its own, which it takes from the front in pieces: half of what is left,
// in whole grains, at least one. Its pieces follow each other, as what they read does in memory,
// and what it has asked for ahead is its own. A thread that is done takes pieces from the back of
// the part that has most left: one that is slowed down (a busy neighbour, a colder cache) gets less
// instead of making the others wait. Which thread takes which piece is left to chance, so only work
// may be shared whose results do not depend on how it is cut.
//
// Made by the one that publishes the phase, on its stack; Take from any thread, lock-free.
#ifndef DOVETAIL_BASE_WORK_SHARE_H_
#define DOVETAIL_BASE_WORK_SHARE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "base/check.h"
#include "base/range.h"

namespace dovetail {

class WorkShare {
 public:
  static constexpr int kMostParts = 64;  // of more threads several have one part

  WorkShare(int64_t total, int64_t grain, int num_threads)
      : total_(total), grain_(grain), num_parts_(std::min(num_threads, kMostParts)) {
    const int64_t grains = (total + grain - 1) / grain;
    DT_CHECK_LE(grains, int64_t{UINT32_MAX});
    for (int i = 0; i < num_parts_; ++i) {
      parts_[i].store(Packed(grains * i / num_parts_, grains * (i + 1) / num_parts_),
                      std::memory_order_relaxed);
    }
  }

  // The next piece of thread `thread`, or false when nothing is left.
  bool Take(int thread, Range* piece) {
    if (TakeFrom(&parts_[thread % num_parts_], /*front=*/true, piece)) return true;
    while (std::atomic<uint64_t>* fullest = Fullest()) {
      if (TakeFrom(fullest, /*front=*/false, piece)) return true;
    }
    return false;
  }

 private:
  // A part: grains [begin, end). It only shrinks, so equal words are equal states.
  static uint64_t Packed(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end);
  }
  static int64_t Begin(uint64_t part) { return static_cast<int64_t>(part >> 32); }
  static int64_t End(uint64_t part) { return static_cast<int64_t>(part & UINT32_MAX); }
  int64_t PieceOf(int64_t left) const {
    return num_parts_ == 1 ? left : std::max<int64_t>(left / 2, 1);
  }
  Range Units(int64_t begin, int64_t end) const {
    return {begin * grain_, std::min(end * grain_, total_)};
  }

  // From the part's front, or its back.
  bool TakeFrom(std::atomic<uint64_t>* part, bool front, Range* piece) {
    uint64_t now = part->load(std::memory_order_relaxed);
    while (Begin(now) < End(now)) {
      const int64_t size = PieceOf(End(now) - Begin(now));
      const int64_t split = front ? Begin(now) + size : End(now) - size;
      const uint64_t rest = front ? Packed(split, End(now)) : Packed(Begin(now), split);
      if (part->compare_exchange_weak(now, rest, std::memory_order_relaxed)) {
        *piece = front ? Units(Begin(now), split) : Units(split, End(now));
        return true;
      }
    }
    return false;
  }
  std::atomic<uint64_t>* Fullest() {
    std::atomic<uint64_t>* fullest = nullptr;
    int64_t most = 0;
    for (int i = 0; i < num_parts_; ++i) {
      const uint64_t part = parts_[i].load(std::memory_order_relaxed);
      if (End(part) - Begin(part) <= most) continue;
      most = End(part) - Begin(part);
      fullest = &parts_[i];
    }
    return fullest;
  }

  const int64_t total_;
  const int64_t grain_;
  const int num_parts_;
  alignas(64) std::array<std::atomic<uint64_t>, kMostParts> parts_;
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_WORK_SHARE_H_
