#include "worker/block_summary.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/test_data.h"

namespace dovetail::worker {
namespace {

std::vector<float> RandomRow(std::mt19937_64& random, int n, bool with_nothing) {
  std::vector<float> row(static_cast<size_t>(n));
  for (float& x : row) {
    x = static_cast<float>(random() % 1000) / 1024;
    if (with_nothing && random() % 4 != 0) x = 0;
  }
  return row;
}

TEST(BlockSummaryTest, SaysWhatBlocksHold) {
  std::mt19937_64 random(testing::TestSeed());
  for (const int n : {1, 63, 64, 65, 128, 1000, 4096}) {
    std::vector<float> row = RandomRow(random, n, false);
    for (float& x : row) x -= 0.5f;
    std::vector<float> largest(NumSummaryBlocks(n));
    std::vector<double> sums(NumSummaryBlocks(n));
    LargestOfBlocks(row.data(), n, largest.data());
    SumsOfBlocks(row.data(), n, sums.data());
    for (int b = 0; b < NumSummaryBlocks(n); ++b) {
      const auto begin = row.begin() + b * kSummaryBlock;
      const auto end = row.begin() + std::min((b + 1) * kSummaryBlock, n);
      EXPECT_EQ(largest[b], *std::max_element(begin, end)) << n << " " << b;
      // Multiples of 1/1024: sums are exact in any order.
      EXPECT_EQ(sums[b], std::accumulate(begin, end, 0.0)) << n << " " << b;
    }
    EXPECT_EQ(SumOf(sums), std::accumulate(row.begin(), row.end(), 0.0));
  }
}

TEST(BlockSummaryTest, PlaceOfIsWhereTheRunningSumPassesTheTarget) {
  std::mt19937_64 random(testing::TestSeed());
  for (const int n : {1, 64, 70, 500, 3000}) {
    const std::vector<float> p = RandomRow(random, n, true);
    std::vector<double> sums(NumSummaryBlocks(n));
    SumsOfBlocks(p.data(), n, sums.data());
    const double total = SumOf(sums);
    for (int trial = 0; trial < 200; ++trial) {
      const double target = static_cast<double>(random() % 1000) / 1000 * total;
      int expected = -1;
      double sum = 0;
      for (int i = 0; i < n && sum <= target; ++i) {
        sum += p[i];
        if (p[i] > 0) expected = i;
      }
      EXPECT_EQ(PlaceOf(target, p.data(), n, sums.data()), expected) << n << " " << target;
    }
  }
}

TEST(BlockSummaryTest, PlaceOfTheWholeSumIsTheLastWithSomething) {
  std::vector<float> p(200, 0.0f);
  std::vector<double> sums(NumSummaryBlocks(200));
  SumsOfBlocks(p.data(), 200, sums.data());
  EXPECT_EQ(PlaceOf(0, p.data(), 200, sums.data()), -1);
  p[3] = p[130] = 0.25f;
  SumsOfBlocks(p.data(), 200, sums.data());
  EXPECT_EQ(PlaceOf(0, p.data(), 200, sums.data()), 3);
  EXPECT_EQ(PlaceOf(0.25, p.data(), 200, sums.data()), 130);
  EXPECT_EQ(PlaceOf(0.5, p.data(), 200, sums.data()), 130);
}

}  // namespace
}  // namespace dovetail::worker
