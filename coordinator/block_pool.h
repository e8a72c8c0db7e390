// BlockPool: hands out the KV cache's blocks and takes them back.
//
// A block is kKvBlockTokens tokens, on every worker that has attention layers. Blocks are numbered
// [0, num_blocks) and counted by reference: sequences share the blocks of a common beginning. A
// block with no references is free. A free block whose content is known ("cached") can still be
// found by its tokens (prefix_index.h), until it is handed out again: blocks without known content
// go first, then cached ones, least recently used first.
//
// Invariants, checked by Audit():
//   1. num_free() + blocks with references == num_blocks().
//   2. A block is in the free list exactly once if it has no references, else not at all.
//   3. In the free list blocks without known content come before cached ones.
// Everything is reserved by the constructor. Not thread-safe: owned by the scheduler.
#ifndef DOVETAIL_COORDINATOR_BLOCK_POOL_H_
#define DOVETAIL_COORDINATOR_BLOCK_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/step_shape.h"
#include "coordinator/prefix_index.h"

namespace dovetail::coordinator {

class BlockPool {
 public:
  explicit BlockPool(int num_blocks);

  // Blocks that hold `num_tokens` tokens.
  static int BlocksFor(int num_tokens) {
    return (num_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  }

  // Takes `count` free blocks with one reference each and appends them to `out`; what they held
  // cannot be found any more. False, with nothing taken, when fewer are free.
  bool Allocate(int count, std::vector<BlockId>* out);
  // One more reference to a block that has at least one.
  void Retain(BlockId block);
  // One reference less for each, last block first: the beginning of a sequence stays findable
  // longest.
  void Release(absl::Span<const BlockId> blocks);

  // Appends the blocks that hold the first tokens of `tokens` to `out`, as many as are cached in a
  // row but at most `max_blocks`, with one more reference each. Returns the node of the last.
  PrefixNode Match(const CacheSalt& salt, absl::Span<const int32_t> tokens, int max_blocks,
                   std::vector<BlockId>* out);
  // How many Match() would find.
  int CountMatches(const CacheSalt& salt, absl::Span<const int32_t> tokens, int max_blocks) const;
  // `block`, which has references, holds exactly these kKvBlockTokens tokens after `parent`: it can
  // be found from now on, unless another one with the same content can. Returns that one's node.
  PrefixNode Cache(BlockId block, PrefixNode parent, const CacheSalt& salt,
                   absl::Span<const int32_t> tokens);
  // The content of all blocks is lost.
  void ForgetCached();

  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  int num_free() const { return num_free_; }  // cached ones too
  int num_used() const { return num_blocks() - num_free_; }
  int num_cached() const { return index_.size(); }  // findable ones, used or free
  int ref_count(BlockId block) const;

  // kInternal names the first invariant that does not hold. Linear; for tests.
  absl::Status Audit() const;

 private:
  struct Block {
    int32_t ref_count = 0;
    BlockId previous = -1;  // in the free list
    BlockId next = -1;
  };
  void PushFree(BlockId block);
  void Unlink(BlockId block);
  void Link(BlockId block, BlockId previous, BlockId next);

  std::vector<Block> blocks_;
  PrefixIndex index_;
  BlockId first_free_ = -1;  // handed out next
  BlockId last_free_ = -1;
  int num_free_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_BLOCK_POOL_H_
