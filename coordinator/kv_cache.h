// KvCache: which blocks hold a sequence's tokens: shared, swapped out, or its own.
//
// Begin() gives a waiting sequence blocks: those that hold its first tokens already (found by their
// tokens), a copy of one that it shares in part with a running sequence, those that it had when it
// was swapped out, and free ones. Copies are collected and travel with the next frame; workers make
// them before they compute anything of that frame, and frames pass every layer in order, so a block
// that is copied from may be handed out again at once.
//
// The swap area has blocks of its own, numbered after those of the cache. Owned by the scheduler.
#ifndef DOVETAIL_COORDINATOR_KV_CACHE_H_
#define DOVETAIL_COORDINATOR_KV_CACHE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/step_shape.h"
#include "coordinator/block_pool.h"
#include "coordinator/sequence.h"
#include "transport/step_frame.h"

namespace dovetail::coordinator {

class KvCache {
 public:
  explicit KvCache(const StepShape& shape);

  // Memory for all blocks that the sequence will ever have.
  static void Reserve(Sequence* sequence);

  // Gives a sequence that waits its blocks and sets num_computed_tokens. False, with nothing
  // changed, when fewer than what is needed and `spare` blocks are free, or the copies that it
  // needs are too many for the next frame. `running`: whose blocks may be shared in part.
  bool Begin(Sequence* sequence, int spare, absl::Span<Sequence* const> running);
  // Room for one more token.
  bool Grow(Sequence* sequence);
  // Takes all blocks away, and what is swapped out: the sequence begins again from its tokens.
  void Drop(Sequence* sequence);
  // Whether all that the sequence has computed fits the swap area and the next frame.
  bool CanSwapOut(const Sequence& sequence) const;
  // Moves it there and takes its blocks away.
  void SwapOut(Sequence* sequence);
  // The sequence's tokens up to `end` were computed: full blocks can be found from now on.
  void Confirm(Sequence* sequence, int end);
  // Nothing that the workers hold may be used any more. No sequence has blocks.
  void Forget();

  // Tokens at the start of `sequence` that lie in blocks that can be found.
  int CountFound(const Sequence& sequence) const;

  // To be made with the next frame, in order.
  std::vector<transport::BlockCopy>& pending_copies() { return pending_copies_; }
  const BlockPool& pool() const { return pool_; }
  int num_swap_free() const { return static_cast<int>(free_swap_.size()); }
  int num_swap_used() const { return num_swap_blocks_ - num_swap_free(); }
  // Prompt tokens of sequences that began, and how many of them were found.
  uint64_t num_queried_tokens() const { return num_queried_tokens_; }
  uint64_t num_found_tokens() const { return num_found_tokens_; }
  // Blocks have as many references as `sequences` hold, and so has every place of the swap area.
  absl::Status Audit(absl::Span<const Sequence* const> sequences) const;

 private:
  // A block that holds the sequence's next tokens, and some others after them.
  struct Partial {
    BlockId block = -1;
    int end = 0;  // tokens from the start that are the sequence's
  };
  int ReusableTokens(const Sequence& sequence) const;
  Partial FindPartial(const Sequence& sequence, absl::Span<Sequence* const> running) const;
  void ReleaseSwapped(Sequence* sequence);
  int copies_left() const { return max_copies_ - static_cast<int>(pending_copies_.size()); }

  BlockPool pool_;
  const int num_swap_blocks_;
  const BlockId first_swap_;
  const int max_copies_;
  std::vector<BlockId> free_swap_;
  std::vector<transport::BlockCopy> pending_copies_;
  uint64_t num_queried_tokens_ = 0;
  uint64_t num_found_tokens_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_KV_CACHE_H_
