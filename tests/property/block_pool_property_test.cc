// The block pool against a plain model of it: maps of references and contents, and a list of free
// blocks.
#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "coordinator/block_pool.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

// The content of a sequence is the path of its blocks; a block's tokens are its number in the path.
using Path = std::vector<int>;

std::vector<int32_t> TokensOf(const Path& path) {
  std::vector<int32_t> tokens;
  for (int step : path) tokens.insert(tokens.end(), kKvBlockTokens, step);
  return tokens;
}

struct Content {
  PrefixNode node = kNoPrefix;
  PrefixNode parent = kNoPrefix;
  int step = 0;
};

struct Owner {
  Path path;
  std::vector<BlockId> blocks;
};

class PoolAndModel {
 public:
  PoolAndModel(uint64_t seed, int num_blocks) : random_(seed), pool_(num_blocks) {
    for (BlockId block = 0; block < num_blocks; ++block) free_.push_back(block);
  }

  void Act() {
    const int choice = Pick(0, 9);
    if (choice == 0) {
      pool_.ForgetCached();
      content_.clear();
    } else if (choice < 6 || owners_.empty()) {
      Arrive();
    } else {
      Leave();
    }
    Compare();
  }

 private:
  int Pick(int low, int high) { return low + static_cast<int>(random_() % (high - low + 1)); }

  // As the scheduler does it: what is found, then free blocks for the rest, then all are findable.
  void Arrive() {
    Owner owner;
    const int length = Pick(1, 6);
    for (int i = 0; i < length; ++i) owner.path.push_back(Pick(0, 1));
    const std::vector<int32_t> tokens = TokensOf(owner.path);
    const int most = Pick(0, length);
    PrefixNode node = pool_.Match({}, tokens, most, &owner.blocks);
    ASSERT_EQ(owner.blocks, Find(owner.path, most));
    for (BlockId block : owner.blocks) {
      if (references_[block]++ == 0) free_.erase(std::find(free_.begin(), free_.end(), block));
    }
    const size_t found = owner.blocks.size();
    const int missing = length - static_cast<int>(found);
    const bool fits = missing <= static_cast<int>(free_.size());
    ASSERT_EQ(pool_.Allocate(missing, &owner.blocks), fits);
    if (!fits) return Release(owner);
    for (int i = 0; i < length; ++i) {
      const BlockId block = owner.blocks[i];
      if (i >= static_cast<int>(found)) {
        ASSERT_EQ(block, free_.front()) << "unknown content first, then the least recently used";
        free_.pop_front();
        content_.erase(block);
        references_[block] = 1;
      }
    }
    for (int i = static_cast<int>(found); i < length; ++i) {
      const PrefixNode parent = node;
      const BlockId known = FindNext(parent, owner.path[i]);
      node = pool_.Cache(owner.blocks[i], node, {},
                         absl::MakeConstSpan(tokens).subspan(i * kKvBlockTokens, kKvBlockTokens));
      if (known >= 0) {
        ASSERT_EQ(node, content_[known].node);
      } else {
        ASSERT_TRUE(nodes_.insert(node).second) << "an id stands for one prefix for ever";
        content_[owner.blocks[i]] = {node, parent, owner.path[i]};
      }
    }
    owners_.push_back(std::move(owner));
  }

  void Leave() {
    std::swap(owners_[Pick(0, static_cast<int>(owners_.size()) - 1)], owners_.back());
    const Owner owner = std::move(owners_.back());
    owners_.pop_back();
    Release(owner);
  }

  void Release(const Owner& owner) {
    pool_.Release(owner.blocks);
    for (auto it = owner.blocks.rbegin(); it != owner.blocks.rend(); ++it) {
      if (--references_[*it] > 0) continue;
      if (content_.count(*it) > 0) {
        free_.push_back(*it);
      } else {
        free_.push_front(*it);
      }
    }
  }

  BlockId FindNext(PrefixNode parent, int step) const {
    for (const auto& [block, content] : content_) {
      if (content.parent == parent && content.step == step) return block;
    }
    return -1;
  }

  std::vector<BlockId> Find(const Path& path, int most) {
    std::vector<BlockId> found;
    PrefixNode node = kNoPrefix;
    for (int i = 0; i < most; ++i) {
      const BlockId block = FindNext(node, path[i]);
      if (block < 0) break;
      found.push_back(block);
      node = content_[block].node;
    }
    return found;
  }

  void Compare() {
    ASSERT_EQ(pool_.num_free(), static_cast<int>(free_.size()));
    for (const auto& [block, count] : references_) ASSERT_EQ(pool_.ref_count(block), count);
    ASSERT_EQ(pool_.num_cached(), static_cast<int>(content_.size()));
    ASSERT_OK(pool_.Audit());
  }

  std::mt19937_64 random_;
  BlockPool pool_;
  std::deque<BlockId> free_;
  std::map<BlockId, int> references_;
  std::map<BlockId, Content> content_;
  std::set<PrefixNode> nodes_;
  std::vector<Owner> owners_;
};

TEST(BlockPoolPropertyTest, BehavesLikeItsModel) {
  const uint64_t seed = testing::TestSeed();
  for (uint64_t round = 0; round < 300; ++round) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed + round);
    PoolAndModel both(seed + round, 1 + static_cast<int>((seed + round) % 40));
    for (int action = 0; action < 200; ++action) {
      both.Act();
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace dovetail::coordinator
