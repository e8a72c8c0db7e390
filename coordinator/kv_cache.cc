#include "coordinator/kv_cache.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::coordinator {
namespace {

// Copying a block costs about what computing a few tokens does.
constexpr int kLeastShared = 4;

}  // namespace

KvCache::KvCache(const StepShape& shape)
    : pool_(shape.num_kv_blocks),
      num_swap_blocks_(shape.num_swap_blocks),
      first_swap_(shape.num_kv_blocks),
      max_copies_(shape.max_block_copies()) {
  free_swap_.reserve(num_swap_blocks_);
  for (int i = num_swap_blocks_ - 1; i >= 0; --i) free_swap_.push_back(first_swap_ + i);
  pending_copies_.reserve(max_copies_);
}

void KvCache::Reserve(Sequence* sequence) {
  const int most = BlockPool::BlocksFor(sequence->max_computed_tokens());
  sequence->blocks.reserve(most);
  sequence->swapped.reserve(most);
}

// The last token is always computed, for its logits, and so are rows whose logits are wanted still.
int KvCache::ReusableTokens(const Sequence& sequence) const {
  const bool logits_left =
      sequence.wants_logits && sequence.num_logit_rows_sent < sequence.num_prompt_tokens;
  const int most = sequence.num_tokens() - 1;
  return logits_left ? std::min(sequence.num_logit_rows_sent, most) : most;
}

int KvCache::CountFound(const Sequence& sequence) const {
  return kKvBlockTokens * pool_.CountMatches(sequence.salt, sequence.tokens,
                                             ReusableTokens(sequence) / kKvBlockTokens);
}

bool KvCache::Begin(Sequence* sequence, int spare, absl::Span<Sequence* const> running) {
  std::vector<BlockId>& blocks = sequence->blocks;
  DT_CHECK(blocks.empty());
  const PrefixNode node = pool_.Match(sequence->salt, sequence->tokens,
                                      ReusableTokens(*sequence) / kKvBlockTokens, &blocks);
  const int found = static_cast<int>(blocks.size());
  const int swapped = static_cast<int>(sequence->swapped.size());
  const Partial partial = swapped > found ? Partial() : FindPartial(*sequence, running);
  const int copies = std::max(swapped - found, 0) + (partial.block >= 0 ? 1 : 0);
  const int wanted = BlockPool::BlocksFor(sequence->num_tokens()) - found;
  if (pool_.num_free() < wanted + spare || copies > copies_left()) {
    pool_.Release(blocks);
    blocks.clear();
    return false;
  }
  DT_CHECK(pool_.Allocate(wanted, &blocks));
  for (int i = found; i < swapped; ++i) {
    pending_copies_.push_back({sequence->swapped[i], blocks[i]});
  }
  if (partial.block >= 0) pending_copies_.push_back({partial.block, blocks[found]});
  // What was swapped out is all that was computed then.
  const int kept = swapped > found ? sequence->num_computed_tokens : found * kKvBlockTokens;
  sequence->num_computed_tokens = std::max(kept, partial.end);
  sequence->num_confirmed_tokens = sequence->num_computed_tokens;
  sequence->num_cached_blocks = found;
  sequence->cached_node = node;
  ReleaseSwapped(sequence);
  if (sequence->num_cached_tokens < 0) {
    sequence->num_cached_tokens =
        std::min(sequence->num_computed_tokens, sequence->num_prompt_tokens);
    num_queried_tokens_ += sequence->num_prompt_tokens;
    num_found_tokens_ += sequence->num_cached_tokens;
  }
  return true;
}

// The next block of a running sequence with the same blocks so far, if it begins with tokens that
// this one needs next.
KvCache::Partial KvCache::FindPartial(const Sequence& sequence,
                                      absl::Span<Sequence* const> running) const {
  const size_t found = sequence.blocks.size();
  const int begin = static_cast<int>(found) * kKvBlockTokens;
  const int most = std::min(ReusableTokens(sequence), begin + kKvBlockTokens);
  Partial best;
  best.end = begin + kLeastShared - 1;
  for (const Sequence* other : running) {
    if (other->removed || other->blocks.size() <= found || !(other->salt == sequence.salt))
      continue;
    if (found > 0 && other->blocks[found - 1] != sequence.blocks[found - 1]) continue;
    const int end = std::min(most, other->num_confirmed_tokens);
    int same = begin;
    while (same < end && other->tokens[same] == sequence.tokens[same]) ++same;
    if (same > best.end) best = {other->blocks[found], same};
  }
  return best.block < 0 ? Partial() : best;
}

bool KvCache::Grow(Sequence* sequence) {
  if (sequence->num_computed_tokens < static_cast<int>(sequence->blocks.size()) * kKvBlockTokens) {
    return true;
  }
  return pool_.Allocate(1, &sequence->blocks);
}

void KvCache::Drop(Sequence* sequence) {
  pool_.Release(sequence->blocks);
  sequence->blocks.clear();
  ReleaseSwapped(sequence);
  sequence->num_computed_tokens = 0;
  sequence->num_confirmed_tokens = 0;
  sequence->num_cached_blocks = 0;
  sequence->cached_node = kNoPrefix;
}

bool KvCache::CanSwapOut(const Sequence& sequence) const {
  const int blocks = BlockPool::BlocksFor(sequence.num_computed_tokens);
  return blocks <= num_swap_free() && blocks <= copies_left();
}

void KvCache::SwapOut(Sequence* sequence) {
  DT_CHECK(sequence->swapped.empty() && sequence->num_in_flight == 0);
  const int blocks = BlockPool::BlocksFor(sequence->num_computed_tokens);
  for (int i = 0; i < blocks; ++i) {
    const BlockId to = free_swap_.back();
    free_swap_.pop_back();
    pending_copies_.push_back({sequence->blocks[i], to});
    sequence->swapped.push_back(to);
  }
  pool_.Release(sequence->blocks);
  sequence->blocks.clear();
  sequence->num_cached_blocks = 0;
  sequence->cached_node = kNoPrefix;
}

void KvCache::ReleaseSwapped(Sequence* sequence) {
  free_swap_.insert(free_swap_.end(), sequence->swapped.begin(), sequence->swapped.end());
  sequence->swapped.clear();
}

void KvCache::Confirm(Sequence* sequence, int end) {
  sequence->num_confirmed_tokens = end;
  for (int i = sequence->num_cached_blocks; i < end / kKvBlockTokens; ++i) {
    const auto tokens =
        absl::MakeConstSpan(sequence->tokens).subspan(i * kKvBlockTokens, kKvBlockTokens);
    sequence->cached_node =
        pool_.Cache(sequence->blocks[i], sequence->cached_node, sequence->salt, tokens);
    sequence->num_cached_blocks = i + 1;
  }
}

void KvCache::Forget() {
  DT_CHECK_EQ(pool_.num_used(), 0);
  pool_.ForgetCached();
  pending_copies_.clear();
}

absl::Status KvCache::Audit(absl::Span<const Sequence* const> sequences) const {
  std::vector<int> holders(pool_.num_blocks() + num_swap_blocks_, 0);
  for (const Sequence* sequence : sequences) {
    for (BlockId block : sequence->blocks) ++holders[block];
    for (BlockId block : sequence->swapped) ++holders[block];
  }
  for (BlockId block = 0; block < pool_.num_blocks(); ++block) {
    if (holders[block] == pool_.ref_count(block)) continue;
    return absl::InternalError(absl::StrCat("block ", block, " has ", pool_.ref_count(block),
                                            " references, ", holders[block], " sequences hold it"));
  }
  for (BlockId block : free_swap_) ++holders[block];
  for (BlockId block = first_swap_; block < first_swap_ + num_swap_blocks_; ++block) {
    if (holders[block] == 1) continue;
    return absl::InternalError(
        absl::StrCat("place ", block, " of the swap area has ", holders[block], " holders"));
  }
  return pool_.Audit();
}

}  // namespace dovetail::coordinator
