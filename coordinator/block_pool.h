// BlockPool: hands out the KV cache's blocks and takes them back.
//
// A block is kKvBlockTokens tokens, on every worker that has attention layers. Blocks are numbered
// [0, num_blocks) and counted by reference, so that sequences will be able to share the blocks of a
// common beginning. A block with no references is free; free blocks are handed out first in, first
// out, so that what was freed last stays untouched longest (what prefix reuse wants).
//
// Invariants, checked by Audit():
//   1. num_free() + blocks with references == num_blocks().
//   2. A block is in the free list exactly once if it has no references, else not at all.
// Everything is reserved by the constructor. Not thread-safe: owned by the scheduler.
#ifndef DOVETAIL_COORDINATOR_BLOCK_POOL_H_
#define DOVETAIL_COORDINATOR_BLOCK_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/step_shape.h"

namespace dovetail::coordinator {

using BlockId = int32_t;

class BlockPool {
 public:
  explicit BlockPool(int num_blocks);

  // Blocks that hold `num_tokens` tokens.
  static int BlocksFor(int num_tokens) {
    return (num_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  }

  // Takes `count` free blocks with one reference each and appends them to `out`. False, with
  // nothing taken, when fewer are free.
  bool Allocate(int count, std::vector<BlockId>* out);
  // One more reference to a block that has at least one.
  void Retain(BlockId block);
  // One reference less for each, last block first: the beginning of a sequence stays reusable
  // longest.
  void Release(absl::Span<const BlockId> blocks);

  int num_blocks() const { return static_cast<int>(ref_counts_.size()); }
  int num_free() const { return num_free_; }
  int num_used() const { return num_blocks() - num_free_; }
  int ref_count(BlockId block) const;

  // kInternal names the first invariant that does not hold. Linear; for tests.
  absl::Status Audit() const;

 private:
  std::vector<int32_t> ref_counts_;
  std::vector<BlockId> free_;  // a ring: num_free_ ids from first_free_
  int first_free_ = 0;
  int num_free_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_BLOCK_POOL_H_
