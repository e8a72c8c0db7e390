#include "coordinator/block_pool.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;

TEST(BlockPoolTest, CountsBlocksForTokens) {
  EXPECT_EQ(BlockPool::BlocksFor(0), 0);
  EXPECT_EQ(BlockPool::BlocksFor(1), 1);
  EXPECT_EQ(BlockPool::BlocksFor(32), 1);
  EXPECT_EQ(BlockPool::BlocksFor(33), 2);
}

TEST(BlockPoolTest, TakesAllOrNothing) {
  BlockPool pool(4);
  std::vector<BlockId> blocks;
  EXPECT_TRUE(pool.Allocate(3, &blocks));
  EXPECT_THAT(blocks, ElementsAre(0, 1, 2));
  EXPECT_FALSE(pool.Allocate(2, &blocks));
  EXPECT_EQ(blocks.size(), 3u);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.num_used(), 3);
  EXPECT_OK(pool.Audit());
}

std::vector<int32_t> Tokens(int count, int first = 0) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Takes blocks for `tokens`, makes the full ones findable, gives them back.
std::vector<BlockId> Use(const std::vector<int32_t>& tokens, BlockPool* pool,
                         const CacheSalt& salt = {}) {
  std::vector<BlockId> blocks;
  EXPECT_TRUE(pool->Allocate(BlockPool::BlocksFor(static_cast<int>(tokens.size())), &blocks));
  PrefixNode node = kNoPrefix;
  for (size_t i = 0; i < tokens.size() / kKvBlockTokens; ++i) {
    node = pool->Cache(blocks[i], node, salt,
                       absl::MakeConstSpan(tokens).subspan(i * kKvBlockTokens, kKvBlockTokens));
  }
  pool->Release(blocks);
  EXPECT_OK(pool->Audit());
  return blocks;
}

TEST(BlockPoolTest, HandsOutUnknownBlocksFirstThenTheLeastRecentlyUsed) {
  BlockPool pool(6);
  const std::vector<BlockId> first = Use(Tokens(64), &pool);
  const std::vector<BlockId> second = Use(Tokens(70, 1000), &pool);
  EXPECT_EQ(pool.num_cached(), 4);
  EXPECT_EQ(pool.num_free(), 6);
  std::vector<BlockId> found;
  pool.Match({}, Tokens(64), 2, &found);
  EXPECT_EQ(found, first);
  EXPECT_EQ(pool.num_free(), 4);
  pool.Release(found);
  std::vector<BlockId> taken;
  ASSERT_TRUE(pool.Allocate(6, &taken));
  EXPECT_THAT(std::vector<BlockId>(taken.begin() + 2, taken.end()),
              ElementsAre(second[1], second[0], first[1], first[0]))
      << "the end of a sequence before its beginning";
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_OK(pool.Audit());
}

TEST(BlockPoolTest, MatchesWholeBlocksFromTheStart) {
  BlockPool pool(8);
  const std::vector<BlockId> blocks = Use(Tokens(100), &pool);
  std::vector<BlockId> found;
  EXPECT_NE(pool.Match({}, Tokens(100), 3, &found), kNoPrefix);
  EXPECT_EQ(found, std::vector<BlockId>(blocks.begin(), blocks.begin() + 3));
  pool.Release(found);
  found.clear();
  pool.Match({}, Tokens(100), 2, &found);
  EXPECT_EQ(found.size(), 2u) << "no more than were asked for";
  pool.Release(found);
  found.clear();
  std::vector<int32_t> other = Tokens(100);
  other[40] = 7;
  pool.Match({}, other, 3, &found);
  EXPECT_EQ(found.size(), 1u);
  pool.Release(found);
  found.clear();
  EXPECT_EQ(pool.Match({}, Tokens(31), 3, &found), kNoPrefix);
  EXPECT_EQ(pool.Match({}, Tokens(64, 32), 3, &found), kNoPrefix) << "other tokens came before";
  EXPECT_EQ(pool.Match(MakeCacheSalt("b"), Tokens(100), 3, &found), kNoPrefix) << "another tenant";
  EXPECT_THAT(found, ::testing::IsEmpty());
  EXPECT_EQ(pool.num_used(), 0);
}

TEST(BlockPoolTest, TheSameContentTwiceIsFoundOnce) {
  BlockPool pool(4);
  std::vector<BlockId> a;
  std::vector<BlockId> b;
  ASSERT_TRUE(pool.Allocate(1, &a));
  ASSERT_TRUE(pool.Allocate(1, &b));
  const PrefixNode node = pool.Cache(a[0], kNoPrefix, {}, Tokens(32));
  EXPECT_EQ(pool.Cache(b[0], kNoPrefix, {}, Tokens(32)), node);
  EXPECT_EQ(pool.num_cached(), 1);
  pool.Release(a);
  pool.Release(b);
  std::vector<BlockId> found;
  pool.Match({}, Tokens(32), 1, &found);
  EXPECT_EQ(found, a);
  pool.Release(found);
  EXPECT_OK(pool.Audit());
}

TEST(BlockPoolTest, AfterForgettingNothingIsFound) {
  BlockPool pool(4);
  Use(Tokens(64), &pool);
  pool.ForgetCached();
  std::vector<BlockId> found;
  EXPECT_EQ(pool.Match({}, Tokens(64), 2, &found), kNoPrefix);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_OK(pool.Audit());
  Use(Tokens(64), &pool);
  EXPECT_EQ(pool.num_cached(), 2);
}

TEST(BlockPoolTest, ASharedBlockIsFreeAfterItsLastReference) {
  BlockPool pool(2);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(1, &blocks));
  pool.Retain(blocks[0]);
  EXPECT_EQ(pool.ref_count(blocks[0]), 2);
  pool.Release(blocks);
  EXPECT_EQ(pool.num_free(), 1);
  pool.Release(blocks);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_OK(pool.Audit());
}

TEST(BlockPoolDeathTest, RefusesToReleaseAFreeBlock) {
  BlockPool pool(2);
  EXPECT_DEATH(pool.Release({1}), "check failed");
  EXPECT_DEATH(pool.Retain(0), "check failed");
}

}  // namespace
}  // namespace dovetail::coordinator
