#include "base/row_split.h"

#include "gmock/gmock.h"

namespace dovetail {
namespace {

using ::testing::ElementsAre;

RowSplit Shares(std::initializer_list<double> shares) {
  RowSplit split;
  for (const double share : shares) split.shares[split.members++] = share;
  return split;
}

TEST(RowSplitTest, CutsInProportionAtWholeUnits) {
  EXPECT_THAT(SplitRows(576, 16, Shares({1, 1})), ElementsAre(Range{0, 288}, Range{288, 576}));
  EXPECT_THAT(SplitRows(1536, 256, Shares({3, 1})), ElementsAre(Range{0, 1280}, Range{1280, 1536}));
  EXPECT_THAT(SplitRows(100, 16, Shares({0.25, 0.5, 0.25})),
              ElementsAre(Range{0, 32}, Range{32, 80}, Range{80, 100}));
  EXPECT_THAT(SplitRows(64, 16, Shares({5})), ElementsAre(Range{0, 64}));
}

TEST(RowSplitTest, EachMemberHasAUnit) {
  EXPECT_THAT(SplitRows(3, 1, Shares({100, 1, 1})),
              ElementsAre(Range{0, 1}, Range{1, 2}, Range{2, 3}));
  EXPECT_THAT(SplitRows(3, 1, Shares({1, 100})), ElementsAre(Range{0, 1}, Range{1, 3}));
  EXPECT_THAT(SplitRows(3, 1, Shares({1, 1})), ElementsAre(Range{0, 2}, Range{2, 3}));
}

// Whatever the shares, parts follow each other without a hole and are as large as they should be,
// to one unit where nobody has less than one.
TEST(RowSplitTest, PartsTileTheRows) {
  uint32_t state = 1;
  const auto next = [&](uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
  };
  for (int round = 0; round < 2000; ++round) {
    RowSplit split;
    split.members = 1 + static_cast<int>(next(kMaxRowMembers));
    double all = 0;
    for (int i = 0; i < split.members; ++i) all += split.shares[i] = 1 + next(9);
    const int64_t unit = int64_t{1} << next(9);
    const int64_t rows =
        unit * (10 * split.members + next(500)) - next(static_cast<uint32_t>(unit));
    const std::vector<Range> parts = SplitRows(rows, unit, split);
    ASSERT_EQ(static_cast<int>(parts.size()), split.members);
    int64_t at = 0;
    for (int i = 0; i < split.members; ++i) {
      ASSERT_EQ(parts[i].begin, at);
      ASSERT_GT(parts[i].size(), 0);
      at = parts[i].end;
      ASSERT_TRUE(at % unit == 0 || at == rows);
      const double wanted = static_cast<double>(rows) * split.shares[i] / all;
      ASSERT_NEAR(static_cast<double>(parts[i].size()), wanted, 2.0 * static_cast<double>(unit));
    }
    ASSERT_EQ(at, rows);
  }
}

}  // namespace
}  // namespace dovetail
