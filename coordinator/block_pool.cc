#include "coordinator/block_pool.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::coordinator {

BlockPool::BlockPool(int num_blocks) : blocks_(num_blocks), index_(num_blocks) {
  DT_CHECK_GT(num_blocks, 0);
  for (BlockId block = num_blocks - 1; block >= 0; --block) PushFree(block);
}

bool BlockPool::Allocate(int count, std::vector<BlockId>* out) {
  DT_CHECK_GE(count, 0);
  if (count > num_free_) return false;
  for (int i = 0; i < count; ++i) {
    const BlockId block = first_free_;
    DT_CHECK_EQ(blocks_[block].ref_count, 0);
    Unlink(block);
    if (index_.node(block) != kNoPrefix) index_.Erase(block);
    blocks_[block].ref_count = 1;
    out->push_back(block);
  }
  return true;
}

void BlockPool::Retain(BlockId block) {
  DT_CHECK_GT(ref_count(block), 0);
  ++blocks_[block].ref_count;
}

void BlockPool::Release(absl::Span<const BlockId> blocks) {
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    DT_CHECK_GT(ref_count(*it), 0);
    if (--blocks_[*it].ref_count == 0) PushFree(*it);
  }
}

PrefixNode BlockPool::Match(const CacheSalt& salt, absl::Span<const int32_t> tokens, int max_blocks,
                            std::vector<BlockId>* out) {
  const size_t most = std::min<size_t>(std::max(max_blocks, 0), tokens.size() / kKvBlockTokens);
  PrefixNode node = kNoPrefix;
  for (size_t i = 0; i < most; ++i) {
    const BlockId block =
        index_.Find(node, salt, tokens.subspan(i * kKvBlockTokens, kKvBlockTokens));
    if (block < 0) break;
    if (blocks_[block].ref_count++ == 0) Unlink(block);
    out->push_back(block);
    node = index_.node(block);
  }
  return node;
}

int BlockPool::CountMatches(const CacheSalt& salt, absl::Span<const int32_t> tokens,
                            int max_blocks) const {
  const size_t most = std::min<size_t>(std::max(max_blocks, 0), tokens.size() / kKvBlockTokens);
  PrefixNode node = kNoPrefix;
  for (size_t i = 0; i < most; ++i) {
    const BlockId block =
        index_.Find(node, salt, tokens.subspan(i * kKvBlockTokens, kKvBlockTokens));
    if (block < 0) return static_cast<int>(i);
    node = index_.node(block);
  }
  return static_cast<int>(most);
}

PrefixNode BlockPool::Cache(BlockId block, PrefixNode parent, const CacheSalt& salt,
                            absl::Span<const int32_t> tokens) {
  DT_CHECK_GT(ref_count(block), 0);
  const BlockId known = index_.Find(parent, salt, tokens);
  if (known >= 0) return index_.node(known);
  return index_.Insert(block, parent, salt, tokens);
}

void BlockPool::ForgetCached() { index_.Clear(); }

int BlockPool::ref_count(BlockId block) const {
  DT_CHECK(block >= 0 && block < num_blocks());
  return blocks_[block].ref_count;
}

void BlockPool::PushFree(BlockId block) {
  if (index_.node(block) != kNoPrefix) {
    Link(block, last_free_, -1);
  } else {
    Link(block, -1, first_free_);
  }
  ++num_free_;
}

void BlockPool::Link(BlockId block, BlockId previous, BlockId next) {
  blocks_[block].previous = previous;
  blocks_[block].next = next;
  (previous < 0 ? first_free_ : blocks_[previous].next) = block;
  (next < 0 ? last_free_ : blocks_[next].previous) = block;
}

void BlockPool::Unlink(BlockId block) {
  const Block& gone = blocks_[block];
  (gone.previous < 0 ? first_free_ : blocks_[gone.previous].next) = gone.next;
  (gone.next < 0 ? last_free_ : blocks_[gone.next].previous) = gone.previous;
  --num_free_;
}

absl::Status BlockPool::Audit() const {
  std::vector<bool> is_free(num_blocks(), false);
  bool cached_seen = false;
  BlockId previous = -1;
  for (BlockId block = first_free_; block >= 0; previous = block, block = blocks_[block].next) {
    if (block >= num_blocks() || is_free[block] || blocks_[block].previous != previous) {
      return absl::InternalError(absl::StrCat("the free list is broken at block ", block));
    }
    is_free[block] = true;
    const bool cached = index_.node(block) != kNoPrefix;
    if (cached_seen && !cached) {
      return absl::InternalError(absl::StrCat("block ", block, " is free behind a cached one"));
    }
    cached_seen |= cached;
  }
  if (previous != last_free_ ||
      std::count(is_free.begin(), is_free.end(), true) != static_cast<std::ptrdiff_t>(num_free_)) {
    return absl::InternalError("the free list has another length than it says");
  }
  for (BlockId block = 0; block < num_blocks(); ++block) {
    const int references = blocks_[block].ref_count;
    if (references < 0 || is_free[block] != (references == 0)) {
      return absl::InternalError(absl::StrCat("block ", block, " has ", references,
                                              " references and is ", is_free[block] ? "" : "not ",
                                              "in the free list"));
    }
  }
  return index_.Audit();
}

}  // namespace dovetail::coordinator
