#include "coordinator/block_pool.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::coordinator {

BlockPool::BlockPool(int num_blocks) : ref_counts_(num_blocks, 0), num_free_(num_blocks) {
  DT_CHECK_GT(num_blocks, 0);
  free_.reserve(num_blocks);
  for (BlockId block = 0; block < num_blocks; ++block) free_.push_back(block);
}

bool BlockPool::Allocate(int count, std::vector<BlockId>* out) {
  DT_CHECK_GE(count, 0);
  if (count > num_free_) return false;
  for (int i = 0; i < count; ++i) {
    const BlockId block = free_[first_free_];
    first_free_ = (first_free_ + 1) % num_blocks();
    --num_free_;
    DT_CHECK_EQ(ref_counts_[block], 0);
    ref_counts_[block] = 1;
    out->push_back(block);
  }
  return true;
}

void BlockPool::Retain(BlockId block) {
  DT_CHECK_GT(ref_count(block), 0);
  ++ref_counts_[block];
}

void BlockPool::Release(absl::Span<const BlockId> blocks) {
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    DT_CHECK_GT(ref_count(*it), 0);
    if (--ref_counts_[*it] > 0) continue;
    free_[(first_free_ + num_free_) % num_blocks()] = *it;
    ++num_free_;
  }
}

int BlockPool::ref_count(BlockId block) const {
  DT_CHECK(block >= 0 && block < num_blocks());
  return ref_counts_[block];
}

absl::Status BlockPool::Audit() const {
  std::vector<bool> is_free(num_blocks(), false);
  for (int i = 0; i < num_free_; ++i) {
    const BlockId block = free_[(first_free_ + i) % num_blocks()];
    if (block < 0 || block >= num_blocks()) {
      return absl::InternalError(absl::StrCat("the free list holds block ", block));
    }
    if (is_free[block]) return absl::InternalError(absl::StrCat("block ", block, " is free twice"));
    is_free[block] = true;
  }
  for (BlockId block = 0; block < num_blocks(); ++block) {
    if (ref_counts_[block] < 0 || is_free[block] != (ref_counts_[block] == 0)) {
      return absl::InternalError(absl::StrCat("block ", block, " has ", ref_counts_[block],
                                              " references and is ", is_free[block] ? "" : "not ",
                                              "in the free list"));
    }
  }
  return absl::OkStatus();
}

}  // namespace dovetail::coordinator
