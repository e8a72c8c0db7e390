// BlockCounter: which blocks of columns the threads of a phase have completed.
//
// A product is shared by panels, and what follows it (the activation function, quantising) reads
// whole blocks of its columns. The thread that computes the last panel of a block goes on with the
// block: no barrier in between, and panels may be shared as finely as they balance best.
//
// Made by the one that publishes the phase; Finish from any of its threads. The counts lie in the
// workspace. They are zero between phases: whoever completes a block sets its count back.
#ifndef DOVETAIL_WORKER_CPU_BLOCK_COUNTER_H_
#define DOVETAIL_WORKER_CPU_BLOCK_COUNTER_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace dovetail::worker {

class BlockCounter {
 public:
  // `counts`: one of each block of the `panels`.
  BlockCounter(std::atomic<int32_t>* counts, int64_t panels, int64_t panels_per_block)
      : counts_(counts), panels_(panels), panels_per_block_(panels_per_block) {}

  static int64_t NumBlocks(int64_t panels, int64_t panels_per_block) {
    return (panels + panels_per_block - 1) / panels_per_block;
  }

  // Panels [begin, end) are computed, each by one call in a phase: runs fn(first panel, past the
  // last) for runs of blocks that are complete with them. What other threads wrote of those is
  // visible to fn.
  template <typename Fn>
  void Finish(int64_t begin, int64_t end, const Fn& fn) const {
    int64_t first = begin, past = begin;  // panels of the current run
    for (int64_t panel = begin; panel < end;) {
      const int64_t block = panel / panels_per_block_;
      const int64_t block_begin = block * panels_per_block_;
      const int64_t block_end = std::min(block_begin + panels_per_block_, panels_);
      const int64_t next = std::min(block_end, end);
      if (Complete(block, next - panel, block_end - block_begin)) {
        if (first == past) first = block_begin;
        past = block_end;
      } else {
        if (first < past) fn(first, past);
        first = past = next;
      }
      panel = next;
    }
    if (first < past) fn(first, past);
  }

 private:
  bool Complete(int64_t block, int64_t computed, int64_t size) const {
    if (computed == size) return true;
    std::atomic<int32_t>& count = counts_[block];
    const auto part = static_cast<int32_t>(computed);
    if (count.fetch_add(part, std::memory_order_acq_rel) + part < size) return false;
    count.store(0, std::memory_order_relaxed);
    return true;
  }

  std::atomic<int32_t>* counts_;
  int64_t panels_;
  int64_t panels_per_block_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_CPU_BLOCK_COUNTER_H_
