#include "tools/dovetail/top_screen.h"

#include "absl/strings/str_join.h"
#include "dovetail/v1/admin.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::tools {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

v1::GetStatusResponse Status(uint64_t generated, uint64_t busy) {
  v1::GetStatusResponse status;
  status.set_state(v1::SERVING_STATE_READY);
  status.set_model("tiny");
  status.set_generated_tokens(generated);
  status.set_running_sequences(3);
  status.set_kv_blocks_total(200);
  status.set_kv_blocks_used(50);
  status.set_uptime_seconds(3725);
  v1::WorkerStatus* worker = status.add_workers();
  worker->set_name("cpu:0");
  worker->set_attached(true);
  worker->set_busy_microseconds(busy);
  worker->set_resident_bytes(123'000'000);
  worker->set_isa("avx2");
  worker->set_num_threads(2);
  v1::SegmentStatus* segment = worker->add_segments();
  segment->set_index(4);
  segment->set_steps(generated);
  segment->set_busy_microseconds(busy);
  return status;
}

std::string Screen(const v1::GetStatusResponse& before, const v1::GetStatusResponse& now,
                   TopShape shape = {.colour = false}) {
  return absl::StrJoin(TopScreen(before, now, 2.0, shape), "\n");
}

TEST(TopScreenTest, RatesAreDifferences) {
  const std::string screen = Screen(Status(100, 1'000'000), Status(150, 2'000'000));
  EXPECT_THAT(screen, HasSubstr("dovetail  ready  tiny  up 1h 02m"));
  EXPECT_THAT(screen, HasSubstr("tokens/s  25.0 generated"));
  EXPECT_THAT(screen, HasSubstr("KV cache  [#####...............] 50 of 200 blocks"));
  EXPECT_THAT(screen, HasSubstr("cpu:0     [##########..........]  50 %"));
  EXPECT_THAT(screen, HasSubstr("123 MB"));
  EXPECT_THAT(screen, HasSubstr("segment 4: 20.00 ms"));  // a second in fifty steps
  EXPECT_THAT(screen, Not(HasSubstr("\033")));
}

TEST(TopScreenTest, ARestartedServerHasNoRates) {
  EXPECT_THAT(Screen(Status(100, 9'000'000), Status(50, 100)),
              HasSubstr("tokens/s  0.0 generated"));
}

TEST(TopScreenTest, LoadingAndLostWorkers) {
  v1::GetStatusResponse now = Status(1, 1);
  now.set_state(v1::SERVING_STATE_RECOVERING);
  now.set_message("worker cpu:1 was lost");
  now.mutable_workers(0)->set_load_bytes_done(25);
  now.mutable_workers(0)->set_load_bytes_total(100);
  v1::WorkerStatus* lost = now.add_workers();
  lost->set_name("cpu:1");
  lost->set_restarts(2);
  const std::string screen = Screen(v1::GetStatusResponse(), now);
  EXPECT_THAT(screen, HasSubstr("recovering"));
  EXPECT_THAT(screen, HasSubstr("worker cpu:1 was lost"));
  EXPECT_THAT(screen, HasSubstr("[#####...............] loaded 25 B of 100 B"));
  EXPECT_THAT(screen, HasSubstr("cpu:1     gone; lost 2 times"));
}

TEST(TopScreenTest, EachModelHasItsPart) {
  v1::GetStatusResponse before;
  v1::GetStatusResponse now = Status(80, 1);
  now.clear_model();
  now.clear_workers();
  *before.add_models() = Status(10, 1'000'000);
  before.mutable_models(0)->set_model("second");
  *now.add_models() = Status(20, 1);
  *now.add_models() = Status(40, 2'000'000);
  now.mutable_models(1)->set_model("second");
  now.mutable_models(1)->set_state(v1::SERVING_STATE_LOADING);
  const std::string screen = Screen(before, now);
  EXPECT_THAT(screen, HasSubstr("dovetail  ready  2 models  up 1h 02m\n"));
  EXPECT_THAT(screen, HasSubstr("dovetail  ready  tiny  up"));
  EXPECT_THAT(screen, HasSubstr("dovetail  loading  second  up"));
  EXPECT_THAT(screen, HasSubstr("tokens/s  15.0 generated")) << "of the model by that name";
}

TEST(TopScreenTest, FitsTheTerminal) {
  for (const std::string& line :
       TopScreen(Status(1, 1), Status(2, 2), 1, {.columns = 30, .rows = 30, .colour = false})) {
    EXPECT_LE(line.size(), 30u) << line;
  }
  EXPECT_THAT(TopScreen(Status(1, 1), Status(2, 2), 1, {.rows = 3}), SizeIs(3));
  EXPECT_THAT(Screen(Status(1, 1), Status(2, 2), {.colour = true}),
              HasSubstr("\033[32mready\033[0m"));
}

TEST(TopScreenTest, Units) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(1234), "1.2 kB");
  EXPECT_EQ(HumanBytes(45.6e9), "46 GB");
  EXPECT_EQ(HumanTime(59.9), "59s");
  EXPECT_EQ(HumanTime(187), "3m 07s");
  EXPECT_EQ(Bar(2, 4), "[####]");
  EXPECT_EQ(Bar(-1, 4), "[....]");
}

}  // namespace
}  // namespace dovetail::tools
