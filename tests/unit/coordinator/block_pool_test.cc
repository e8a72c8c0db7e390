#include "coordinator/block_pool.h"

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

TEST(BlockPoolTest, HandsOutTheLongestFreeFirstAndFreesInReverse) {
  BlockPool pool(4);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(3, &blocks));
  pool.Release(blocks);
  std::vector<BlockId> again;
  ASSERT_TRUE(pool.Allocate(4, &again));
  EXPECT_THAT(again, ElementsAre(3, 2, 1, 0));
  EXPECT_OK(pool.Audit());
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
