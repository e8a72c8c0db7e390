#include "worker/cpu/block_counter.h"

#include <vector>

#include "base/thread_pool.h"
#include "base/work_share.h"
#include "gmock/gmock.h"

namespace dovetail::worker {
namespace {

using Runs = std::vector<std::pair<int64_t, int64_t>>;

class Blocks {
 public:
  Blocks(int64_t panels, int64_t per_block)
      : counts_(BlockCounter::NumBlocks(panels, per_block)),
        counter_(counts_.data(), panels, per_block) {}

  Runs Finish(int64_t begin, int64_t end) {
    Runs runs;
    counter_.Finish(begin, end, [&](int64_t from, int64_t to) { runs.emplace_back(from, to); });
    return runs;
  }
  bool AllZero() const {
    return std::all_of(counts_.begin(), counts_.end(), [](const auto& c) { return c == 0; });
  }

 private:
  std::vector<std::atomic<int32_t>> counts_;
  BlockCounter counter_;
};

TEST(BlockCounterTest, WholeBlocksAreOneRun) {
  Blocks blocks(10, 4);
  EXPECT_THAT(blocks.Finish(0, 10), ::testing::ElementsAre(std::make_pair(0, 10)));
  EXPECT_TRUE(blocks.AllZero());
}

TEST(BlockCounterTest, TheLastPanelCompletesABlock) {
  Blocks blocks(10, 4);
  EXPECT_THAT(blocks.Finish(2, 6), ::testing::IsEmpty());
  EXPECT_THAT(blocks.Finish(0, 2), ::testing::ElementsAre(std::make_pair(0, 4)));
  EXPECT_THAT(blocks.Finish(9, 10), ::testing::IsEmpty());
  EXPECT_THAT(blocks.Finish(6, 9), ::testing::ElementsAre(std::make_pair(4, 10)));
  EXPECT_TRUE(blocks.AllZero());
}

TEST(BlockCounterTest, AnIncompleteBlockPartsARun) {
  Blocks blocks(24, 8);
  EXPECT_THAT(blocks.Finish(8, 12), ::testing::IsEmpty());
  EXPECT_THAT(blocks.Finish(0, 8), ::testing::ElementsAre(std::make_pair(0, 8)));
  EXPECT_THAT(blocks.Finish(14, 24), ::testing::ElementsAre(std::make_pair(16, 24)));
  EXPECT_THAT(blocks.Finish(12, 14), ::testing::ElementsAre(std::make_pair(8, 16)));
  EXPECT_TRUE(blocks.AllZero());
}

// Every block is gone on with once, by a thread that sees all of it.
TEST(BlockCounterTest, ThreadsCompleteEachBlockOnce) {
  constexpr int64_t kPanels = 371, kPerBlock = 16;
  ThreadPool pool(4, {});
  std::vector<std::atomic<int32_t>> counts(BlockCounter::NumBlocks(kPanels, kPerBlock));
  const BlockCounter counter(counts.data(), kPanels, kPerBlock);
  for (int phase = 1; phase <= 300; ++phase) {
    std::vector<int> computed(kPanels), seen(kPanels);  // not atomic: TSan looks
    pool.Share(kPanels, 2, [&](int64_t begin, int64_t end) {
      for (int64_t panel = begin; panel < end; ++panel) computed[panel] = phase;
      counter.Finish(begin, end, [&](int64_t from, int64_t to) {
        for (int64_t panel = from; panel < to; ++panel) seen[panel] += computed[panel];
      });
    });
    ASSERT_THAT(seen, ::testing::Each(phase));
    for (const std::atomic<int32_t>& count : counts) ASSERT_EQ(count, 0);
  }
}

}  // namespace
}  // namespace dovetail::worker
