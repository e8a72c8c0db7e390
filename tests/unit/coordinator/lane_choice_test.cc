#include "coordinator/lane_choice.h"

#include <vector>

#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

// Teaches the model workers with t = constant + row * rows.
CostModel Learned(const std::vector<std::pair<double, double>>& workers) {
  CostModel model({});
  std::vector<int> route;
  for (size_t i = 0; i < workers.size(); ++i) route.push_back(static_cast<int>(i));
  model.SetRoute(route);
  for (int i = 0; i < 300; ++i) {
    StepWork work;
    const int rows = 1 + i % 32;
    if (i % 3 == 0) {
      work.prefill_rows = 16 * rows;
    } else {
      work.decode_rows = rows;
    }
    std::vector<uint32_t> us;
    double sum = 0;
    for (const auto& [constant, row] : workers) {
      us.push_back(
          static_cast<uint32_t>(1e6 * (constant + row * (work.decode_rows + work.prefill_rows))));
      sum += us.back() * 1e-6;
    }
    model.Observe(work, us, sum + 50e-6, true);
  }
  return model;
}

TEST(LaneChoiceTest, AFixedNumberStays) {
  const CostModel model = Learned({{1e-3, 1e-3}, {1e-3, 1e-3}});
  LaneChoice lanes(3, /*adaptive=*/false);
  lanes.Update(model, 16, 100, 512);
  EXPECT_EQ(lanes.decode_lanes(), 3);
  EXPECT_EQ(lanes.in_flight(), 3);
}

TEST(LaneChoiceTest, OneLaneUntilSomethingIsKnown) {
  CostModel model({});
  LaneChoice lanes(4, /*adaptive=*/true);
  lanes.Update(model, 16, 100, 512);
  EXPECT_EQ(lanes.decode_lanes(), 1);
  EXPECT_EQ(lanes.in_flight(), 1);
}

TEST(LaneChoiceTest, WorkThatGrowsWithRowsIsCut) {
  const CostModel model = Learned({{1e-5, 1e-3}, {1e-5, 1e-3}});
  LaneChoice lanes(3, /*adaptive=*/true);
  lanes.Update(model, 16, 0, 0);
  EXPECT_EQ(lanes.decode_lanes(), 2) << "both workers are busy all the time";
  EXPECT_NEAR(LaneChoice::Cycle(model, 16, 0, 1), 32e-3, 1e-3);
  EXPECT_NEAR(LaneChoice::Cycle(model, 16, 0, 2), 16e-3, 1e-3);
}

TEST(LaneChoiceTest, WorkThatDoesNotGrowIsNotCut) {
  const CostModel model = Learned({{10e-3, 1e-5}});
  LaneChoice lanes(4, /*adaptive=*/true);
  lanes.Update(model, 16, 0, 0);
  EXPECT_EQ(lanes.decode_lanes(), 1);
  // Three equal workers that read their weights whatever comes: three lanes for three sequences.
  const CostModel route = Learned({{10e-3, 1e-5}, {10e-3, 1e-5}, {10e-3, 1e-5}});
  LaneChoice one(4, /*adaptive=*/true);
  one.Update(route, 1, 0, 0);
  EXPECT_EQ(one.decode_lanes(), 1) << "nothing to cut";
}

TEST(LaneChoiceTest, PromptsUseAsManyLanesAsKeepTheBusiestWorkerBusy) {
  const CostModel model = Learned({{1e-4, 1e-3}, {1e-4, 1e-3}, {1e-4, 1e-3}});
  LaneChoice lanes(8, /*adaptive=*/true);
  lanes.Update(model, 1, 100, 512);
  EXPECT_EQ(lanes.decode_lanes(), 1);
  EXPECT_EQ(lanes.in_flight(), 3);
  lanes.Update(model, 1, 100, 0);
  EXPECT_EQ(lanes.in_flight(), 1);
}

TEST(LaneChoiceTest, SmallChangesChangeNothing) {
  const CostModel model = Learned({{1e-5, 1e-3}, {1e-5, 1e-3}});
  LaneChoice lanes(3, /*adaptive=*/true);
  lanes.Update(model, 16, 0, 0);
  const CostModel slow = Learned({{50e-3, 1e-6}});
  lanes.Update(slow, 17, 0, 0);
  EXPECT_EQ(lanes.decode_lanes(), 2);
  lanes.Update(slow, 30, 0, 0);
  EXPECT_EQ(lanes.decode_lanes(), 1);
}

}  // namespace
}  // namespace dovetail::coordinator
