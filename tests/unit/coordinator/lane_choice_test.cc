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
  EXPECT_EQ(lanes.in_flight(), 4) << "one for each worker and one on its way";
  lanes.Update(model, 1, 100, 0);
  EXPECT_EQ(lanes.in_flight(), 1);
  const CostModel alone = Learned({{1e-4, 1e-3}});
  lanes.Update(alone, 1, 100, 512);
  EXPECT_EQ(lanes.in_flight(), 1);
}

// Until something is known prompts go through all workers at once, in four parts each.
TEST(LaneChoiceTest, PromptsAreCutBeforeAnythingIsKnown) {
  CostModel model({});
  model.SetRoute({0, 1});
  LaneChoice lanes(3, /*adaptive=*/true);
  lanes.Update(model, 0, 0, 512);
  EXPECT_EQ(lanes.in_flight(), 2);
  EXPECT_EQ(lanes.decode_lanes(), 1);
  EXPECT_EQ(lanes.ChunkRows(model, 2000, 512), 224);
  EXPECT_EQ(lanes.ChunkRows(model, 512, 512), 64);
  EXPECT_EQ(lanes.ChunkRows(model, 100, 512), 32);
  EXPECT_EQ(lanes.ChunkRows(model, 32, 512), 512);
  EXPECT_EQ(lanes.ChunkRows(model, 2000, 20), 20) << "not more than is allowed";
}

TEST(LaneChoiceTest, ChunksBalanceFillingTheRouteAgainstWhatAStepCosts) {
  const auto chunk_of = [](const CostModel& model, int rows) {
    LaneChoice lanes(4, /*adaptive=*/true);
    lanes.Update(model, 0, 0, 512);
    return lanes.ChunkRows(model, rows, 512);
  };
  // Seconds of a route of two: (n + 1) (constant + row * rows / n), least at n = sqrt(row * rows /
  // constant): 7.2 of 512 rows, 14 of 2048.
  const CostModel model = Learned({{10e-3, 1e-3}, {10e-3, 1e-3}});
  EXPECT_NEAR(chunk_of(model, 512), 512 / 7.2, 32);
  EXPECT_NEAR(chunk_of(model, 2048), 2048 / 14.0, 32);
  // What costs the same whatever it has is not cut.
  EXPECT_EQ(chunk_of(Learned({{1, 1e-6}, {1, 1e-6}}), 2048), 512);
  EXPECT_EQ(chunk_of(Learned({{1e-6, 1e-3}, {1e-6, 1e-3}}), 2048), 64);
  EXPECT_EQ(chunk_of(Learned({{1e-6, 1e-3}}), 2048), 512) << "there is no other worker";
}

// All steps have eight rows: both numbers of lanes are tried before one is chosen.
TEST(LaneChoiceTest, TriesWhatItCannotPredict) {
  CostModel model({});
  model.SetRoute({0, 1});
  const auto observe = [&](int rows) {
    StepWork work;
    work.decode_rows = rows;
    const auto us = static_cast<uint32_t>(1000 * rows);
    model.Observe(work, {us, us}, 2e-6 * us, true);
  };
  LaneChoice lanes(3, /*adaptive=*/true);
  for (int i = 0; i < 12; ++i) observe(8);
  lanes.Update(model, 8, 0, 0);
  EXPECT_EQ(lanes.decode_lanes(), 2) << "a trial";
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(lanes.decode_lanes(), 2);
    observe(4);
    lanes.Update(model, 8, 0, 0);
  }
  EXPECT_TRUE(model.knows_decode_rows());
  EXPECT_EQ(lanes.decode_lanes(), 2) << "time grows with the rows, so this is better";
  for (int i = 0; i < 200; ++i) {
    observe(4);
    lanes.Update(model, 8, 0, 0);
    ASSERT_EQ(lanes.decode_lanes(), 2) << "no more trials";
  }
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
