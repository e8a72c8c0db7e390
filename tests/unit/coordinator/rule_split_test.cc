#include "coordinator/placement/rule_split.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int> Counts(const std::vector<int>& runs, int num_runs) {
  std::vector<int> counts(num_runs, 0);
  for (const int run : runs) ++counts[run];
  return counts;
}

TEST(RuleSplitTest, CountsLayersExactly) {
  const std::vector<double> layers(61, 1.0);
  EXPECT_THAT(Counts(SplitInProportion(layers, {24, 37}), 2), ElementsAre(24, 37));
  EXPECT_THAT(Counts(SplitInProportion(layers, {15, 15, 15, 16}), 4), ElementsAre(15, 15, 15, 16));
  EXPECT_THAT(Counts(SplitInProportion(layers, {1, 1}), 2), ElementsAre(31, 30));
}

TEST(RuleSplitTest, RunsAreInOrderAndInProportionOfSizes) {
  EXPECT_THAT(SplitInProportion({1, 1, 1, 9}, {1, 3}), ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(SplitInProportion({9, 1, 1, 1}, {3, 1}), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(SplitInProportion({1, 1}, {1e-9, 1, 1}), ElementsAre(1, 2)) << "a share of nothing";
  EXPECT_THAT(SplitInProportion({}, {1, 2}), IsEmpty());
  EXPECT_THAT(SplitInProportion({0, 0}, {1, 2}), ElementsAre(0, 0));
}

}  // namespace
}  // namespace dovetail::coordinator
