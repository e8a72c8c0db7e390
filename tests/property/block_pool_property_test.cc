// The block pool against a plain model of it: a map of references and a queue of free blocks.
#include <deque>
#include <map>
#include <random>

#include "coordinator/block_pool.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

TEST(BlockPoolPropertyTest, BehavesLikeItsModel) {
  std::mt19937_64 random(testing::TestSeed());
  for (int round = 0; round < 200; ++round) {
    const int num_blocks = 1 + static_cast<int>(random() % 40);
    BlockPool pool(num_blocks);
    std::deque<BlockId> free;
    for (BlockId block = 0; block < num_blocks; ++block) free.push_back(block);
    std::map<BlockId, int> references;
    std::vector<std::vector<BlockId>> owners;
    for (int action = 0; action < 200; ++action) {
      const int choice = static_cast<int>(random() % 3);
      if (choice == 0 || owners.empty()) {
        const int count = static_cast<int>(random() % (num_blocks + 2));
        std::vector<BlockId> taken;
        const bool fits = count <= static_cast<int>(free.size());
        ASSERT_EQ(pool.Allocate(count, &taken), fits);
        ASSERT_EQ(taken.size(), fits ? static_cast<size_t>(count) : 0u);
        for (BlockId block : taken) {
          ASSERT_EQ(block, free.front()) << "first in, first out";
          free.pop_front();
          references[block] = 1;
        }
        if (fits) owners.push_back(std::move(taken));
      } else if (choice == 1) {
        std::vector<BlockId> shared = owners[random() % owners.size()];
        for (BlockId block : shared) {
          pool.Retain(block);
          ++references[block];
        }
        owners.push_back(std::move(shared));
      } else {
        std::swap(owners[random() % owners.size()], owners.back());
        const std::vector<BlockId> released = std::move(owners.back());
        owners.pop_back();
        pool.Release(released);
        for (auto it = released.rbegin(); it != released.rend(); ++it) {
          if (--references[*it] == 0) free.push_back(*it);
        }
      }
      ASSERT_EQ(pool.num_free(), static_cast<int>(free.size()));
      for (const auto& [block, count] : references) ASSERT_EQ(pool.ref_count(block), count);
      ASSERT_OK(pool.Audit());
    }
  }
}

}  // namespace
}  // namespace dovetail::coordinator
