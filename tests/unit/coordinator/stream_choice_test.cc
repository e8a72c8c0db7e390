#include "coordinator/stream_choice.h"

#include <vector>

#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

constexpr StreamCost kTenthOfASecond = {.bytes = 5'000'000'000, .bytes_per_second = 50e9};

// A GPU worker, and a CPU worker that takes so long for each row.
CostModel Learned(double seconds_per_row) {
  CostModel model({});
  const std::vector<int> route = {0, 1};
  model.SetRoute(route);
  for (int i = 0; i < 200; ++i) {
    StepWork work;
    work.prefill_rows = 16 * (1 + i % 32);
    const double cpu = seconds_per_row * work.prefill_rows;
    const std::vector<uint32_t> us = {1000, static_cast<uint32_t>(1e6 * cpu)};
    model.Observe(work, us, 1e-3 + cpu, true);
  }
  return model;
}

StepWork Rows(double rows) {
  StepWork work;
  work.prefill_rows = rows;
  return work;
}

TEST(StreamChoiceTest, NeverUnlessItIsAskedForAndPossible) {
  const CostModel model = Learned(1e-3);
  StreamChoice never(StreamChoice::kNever);
  never.SetRoute(kTenthOfASecond);
  EXPECT_FALSE(never.Streams(model, Rows(10000)));
  StreamChoice nothing(1);
  nothing.SetRoute({});
  EXPECT_FALSE(nothing.Streams(model, Rows(10000))) << "the plan has nothing to stream";
  StreamChoice unknown(StreamChoice::kAuto);
  unknown.SetRoute({.bytes = 1, .bytes_per_second = 0});
  EXPECT_FALSE(unknown.Streams(model, Rows(10000))) << "nobody knows how long it takes";
}

TEST(StreamChoiceTest, FromANumberOfRowsOn) {
  StreamChoice choice(256);
  choice.SetRoute(kTenthOfASecond);
  const CostModel nothing_seen({});
  StepWork work = Rows(250);
  EXPECT_FALSE(choice.Streams(nothing_seen, work));
  work.decode_rows = 6;
  EXPECT_TRUE(choice.Streams(nothing_seen, work));
  const LaneChoice lanes(4, /*adaptive=*/false);
  EXPECT_EQ(choice.ChunkRows(nothing_seen, lanes, 3000, 512), 512);
  EXPECT_LT(choice.ChunkRows(nothing_seen, lanes, 200, 512), 200) << "cut, to fill the route";
}

TEST(StreamChoiceTest, WhereItIsPredictedToBeFaster) {
  const CostModel model = Learned(1e-3);  // 100 ms are 100 rows
  StreamChoice choice(StreamChoice::kAuto);
  choice.SetRoute(kTenthOfASecond);
  EXPECT_FALSE(choice.Streams(model, Rows(90)));
  EXPECT_TRUE(choice.Streams(model, Rows(130)));
  const LaneChoice lanes(4, /*adaptive=*/false);
  EXPECT_EQ(choice.ChunkRows(model, lanes, 2000, 1000), 1000);
  EXPECT_EQ(choice.ChunkRows(model, lanes, 90, 1000), lanes.ChunkRows(model, 90, 1000));
  EXPECT_FALSE(choice.Streams(CostModel({}), Rows(10000))) << "no step was seen yet";
}

TEST(StreamChoiceTest, LearnsHowLongItTakes) {
  const CostModel model = Learned(1e-3);
  StreamChoice choice(StreamChoice::kAuto);
  choice.SetRoute(kTenthOfASecond);
  for (int i = 0; i < 20; ++i) choice.Observe(Rows(400), 0.5);
  EXPECT_NEAR(choice.Seconds(400), 0.5, 1e-3);
  EXPECT_NEAR(choice.Seconds(100), 0.5, 1e-3) << "as long for few rows";
  EXPECT_NEAR(choice.Seconds(800), 1.0, 1e-3) << "not known: in proportion";
  EXPECT_FALSE(choice.Streams(model, Rows(400)));
  for (int i = 0; i < 20; ++i) choice.Observe(Rows(800), 0.55);
  EXPECT_NEAR(choice.Seconds(800), 0.55, 1e-2);
  EXPECT_TRUE(choice.Streams(model, Rows(800)));
  choice.SetRoute(kTenthOfASecond);
  EXPECT_NEAR(choice.Seconds(800), 0.1, 1e-9) << "another route";
}

}  // namespace
}  // namespace dovetail::coordinator
