#include "coordinator/prefix_index.h"

#include <numeric>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

std::vector<int32_t> Block(int first) {
  std::vector<int32_t> tokens(kKvBlockTokens);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(PrefixIndexTest, FindsABlockByItsTokensAndWhatCameBefore) {
  PrefixIndex index(8);
  const PrefixNode a = index.Insert(3, kNoPrefix, {}, Block(0));
  const PrefixNode b = index.Insert(5, a, {}, Block(100));
  EXPECT_NE(a, kNoPrefix);
  EXPECT_NE(b, a);
  EXPECT_EQ(index.Find(kNoPrefix, {}, Block(0)), 3);
  EXPECT_EQ(index.Find(a, {}, Block(100)), 5);
  EXPECT_EQ(index.Find(kNoPrefix, {}, Block(100)), -1);
  EXPECT_EQ(index.Find(b, {}, Block(100)), -1);
  EXPECT_EQ(index.Find(a, {}, Block(101)), -1);
  EXPECT_EQ(index.node(3), a);
  EXPECT_EQ(index.node(4), kNoPrefix);
  EXPECT_EQ(index.size(), 2);
  EXPECT_OK(index.Audit());
}

TEST(PrefixIndexTest, SaltsSeparate) {
  const CacheSalt a = MakeCacheSalt("tenant a");
  EXPECT_EQ(a, MakeCacheSalt("tenant a"));
  EXPECT_FALSE(a == MakeCacheSalt("tenant b"));
  EXPECT_FALSE(a == CacheSalt());
  EXPECT_EQ(MakeCacheSalt(""), CacheSalt());
  PrefixIndex index(4);
  index.Insert(0, kNoPrefix, a, Block(0));
  EXPECT_EQ(index.Find(kNoPrefix, a, Block(0)), 0);
  EXPECT_EQ(index.Find(kNoPrefix, {}, Block(0)), -1);
}

TEST(PrefixIndexTest, AnErasedBlockTakesItsChildrenOutOfReach) {
  PrefixIndex index(4);
  const PrefixNode old = index.Insert(0, kNoPrefix, {}, Block(0));
  index.Insert(1, old, {}, Block(50));
  index.Erase(0);
  EXPECT_EQ(index.Find(kNoPrefix, {}, Block(0)), -1);
  const PrefixNode again = index.Insert(2, kNoPrefix, {}, Block(0));
  EXPECT_NE(again, old) << "an id stands for one prefix for ever";
  EXPECT_EQ(index.Find(again, {}, Block(50)), -1);
  index.Erase(1);
  EXPECT_EQ(index.size(), 1);
  EXPECT_OK(index.Audit());
}

TEST(PrefixIndexTest, HoldsEveryBlockAndForgetsThemAll) {
  constexpr int kBlocks = 1000;
  PrefixIndex index(kBlocks);
  for (BlockId block = 0; block < kBlocks; ++block)
    index.Insert(block, kNoPrefix, {}, Block(block));
  for (BlockId block = 0; block < kBlocks; ++block) {
    ASSERT_EQ(index.Find(kNoPrefix, {}, Block(block)), block);
  }
  for (BlockId block = 0; block < kBlocks; block += 2) index.Erase(block);
  for (BlockId block = 0; block < kBlocks; ++block) {
    ASSERT_EQ(index.Find(kNoPrefix, {}, Block(block)), block % 2 == 0 ? -1 : block);
  }
  EXPECT_OK(index.Audit());
  index.Clear();
  EXPECT_EQ(index.size(), 0);
  EXPECT_EQ(index.Find(kNoPrefix, {}, Block(1)), -1);
  EXPECT_OK(index.Audit());
}

TEST(PrefixIndexDeathTest, RefusesABlockTwice) {
  PrefixIndex index(2);
  index.Insert(0, kNoPrefix, {}, Block(0));
  EXPECT_DEATH(index.Insert(0, kNoPrefix, {}, Block(1)), "check failed");
  EXPECT_DEATH(index.Erase(1), "check failed");
}

}  // namespace
}  // namespace dovetail::coordinator
