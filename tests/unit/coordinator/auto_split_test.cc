#include "coordinator/placement/auto_split.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;

std::vector<SplitItem> Items(const std::vector<int>& sizes) {
  std::vector<SplitItem> items;
  for (const int size : sizes) {
    items.push_back({.bytes = size, .work = static_cast<double>(size)});
  }
  return items;
}

std::vector<SplitDevice> Devices(const std::vector<int>& rooms) {
  std::vector<SplitDevice> devices;
  for (const int room : rooms) devices.push_back({.room = room});
  return devices;
}

TEST(AutoSplitTest, BalancesTime) {
  EXPECT_THAT(SplitRuns(Items({1, 1, 1, 1}), Devices({9, 9})).begins, ElementsAre(0, 2));
  EXPECT_THAT(SplitRuns(Items({5, 1, 1, 1, 1, 1}), Devices({9, 9})).begins, ElementsAre(0, 1));
  EXPECT_THAT(SplitRuns(Items({}), Devices({9, 9, 9})).begins, ElementsAre(0, 0, 0));
  EXPECT_THAT(SplitRuns(Items({4}), Devices({9})).begins, ElementsAre(0));
  std::vector<SplitDevice> devices = Devices({99, 99});
  devices[0].extra.work = 2;
  EXPECT_THAT(SplitRuns(Items({1, 1, 1, 1}), devices).begins, ElementsAre(0, 1));
  devices[0].extra.work = 0;
  devices[1].extra.work = 10;
  EXPECT_THAT(SplitRuns(Items({1, 1, 1, 1}), devices).begins, ElementsAre(0, 4));
  devices[1].extra.work = 0;
  devices[1].speed = 1.5;
  EXPECT_THAT(SplitRuns(Items({1, 1, 1, 1}), devices).begins, ElementsAre(0, 1))
      << "the faster device takes more";
  devices[1].speed = 3;
  EXPECT_THAT(SplitRuns(Items({1, 1, 1, 1}), devices).begins, ElementsAre(0, 0))
      << "and all, where it alone is faster than both in turn";
}

TEST(AutoSplitTest, PromptsCountAsMuchAsDecoding) {
  std::vector<SplitItem> items = Items(std::vector<int>(28, 10));
  for (SplitItem& item : items) item.prompt_work = 1e9;
  std::vector<SplitDevice> devices = Devices({999, 999});
  devices[1].extra.work = 60;  // a head, of which prompts have one row
  EXPECT_THAT(SplitRuns(Items(std::vector<int>(28, 10)), devices).begins, ElementsAre(0, 17));
  const std::vector<int> both = SplitRuns(items, devices).begins;
  EXPECT_GT(both[1], 14);
  EXPECT_LT(both[1], 17);
  for (SplitItem& item : items) item.work = 0;
  devices[1].extra.work = 0;
  EXPECT_THAT(SplitRuns(items, devices).begins, ElementsAre(0, 14));
  devices[0].prompt_speed = 3;
  EXPECT_THAT(SplitRuns(items, devices).begins, ElementsAre(0, 25)) << "by its square";
}

TEST(AutoSplitTest, StaysWithinBudgets) {
  const Split split = SplitRuns(Items({1, 1, 1, 1}), Devices({1, 9}));
  EXPECT_TRUE(split.fits);
  EXPECT_THAT(split.begins, ElementsAre(0, 1));
  std::vector<SplitDevice> devices = Devices({3, 3});
  devices[1].extra.bytes = 2;
  EXPECT_THAT(SplitRuns(Items({1, 1, 1, 1}), devices).begins, ElementsAre(0, 3));
}

TEST(AutoSplitTest, WithoutRoomTheMostEvenSplit) {
  const Split split = SplitRuns(Items({1, 1, 1, 1}), Devices({1, 1}));
  EXPECT_FALSE(split.fits);
  EXPECT_THAT(split.begins, ElementsAre(0, 2));
}

}  // namespace
}  // namespace dovetail::coordinator
