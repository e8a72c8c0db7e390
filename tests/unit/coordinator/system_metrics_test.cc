#include "coordinator/system_metrics.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

StatusSnapshot Ready(const std::string& model) {
  StatusSnapshot status;
  status.state = ServingState::kReady;
  status.model = model;
  status.engine.steps = 12'345'678;
  status.workers.resize(1);
  status.workers[0].name = "cpu:0";
  return status;
}

TEST(SystemMetricsTest, EveryWorkerAndSegmentHasItsSamples) {
  StatusSnapshot status;
  status.state = ServingState::kLoading;
  status.model = "m";
  status.engine.kv_blocks_total = 10;
  status.engine.kv_blocks_used = 4;
  status.engine.waiting = 3;
  WorkerSnapshot worker;
  worker.name = "cpu:0";
  worker.attached = true;
  worker.resident_bytes = 100;
  worker.planned_bytes = 300;
  worker.mapped_bytes = 5000;
  worker.peak_resident_bytes = 200;
  worker.busy_microseconds = 1'500'000;
  worker.segments.push_back({.index = 2, .steps = 9, .busy_microseconds = 250'000});
  status.workers.push_back(worker);
  worker.name = "cpu:1";
  worker.attached = false;
  worker.segments.clear();
  status.workers.push_back(worker);

  MetricsText out;
  WriteSystemMetrics(status, &out);
  const std::string& text = out.text();
  EXPECT_THAT(text, HasSubstr(",model=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_state{state=\"loading\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_state{state=\"ready\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_kv_blocks{model=\"m\",state=\"free\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_requests_waiting{model=\"m\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_worker_up{model=\"m\",worker=\"cpu:0\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_worker_up{model=\"m\",worker=\"cpu:1\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr("dovetail_worker_memory_bytes{model=\"m\",worker=\"cpu:0\",kind=\"peak\"} 200\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "dovetail_worker_memory_bytes{model=\"m\",worker=\"cpu:0\",kind=\"mapped\"} 5000\n"));
  EXPECT_THAT(text,
              HasSubstr("dovetail_worker_busy_seconds_total{model=\"m\",worker=\"cpu:0\"} 1.5\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "dovetail_segment_seconds_total{model=\"m\",worker=\"cpu:0\",segment=\"2\"} 0.25\n"));
}

TEST(SystemMetricsTest, SeveralModelsShareFamilies) {
  StatusSnapshot loading = Ready("b");
  loading.state = ServingState::kLoading;
  MetricsText out;
  WriteSystemMetrics(CombineStatus({Ready("a"), loading}), &out);
  const std::string& text = out.text();
  EXPECT_THAT(text, HasSubstr("# TYPE dovetail_steps_total counter\n"
                              "dovetail_steps_total{model=\"a\"} 12345678\n"
                              "dovetail_steps_total{model=\"b\"} 12345678\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_state{state=\"loading\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_model_state{model=\"a\",state=\"ready\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_model_state{model=\"b\",state=\"loading\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("dovetail_worker_up{model=\"b\",worker=\"cpu:0\"} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("model=\"\"")));
}

}  // namespace
}  // namespace dovetail::coordinator
