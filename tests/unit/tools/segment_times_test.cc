#include "tools/dovetail/segment_times.h"

#include <initializer_list>
#include <utility>

#include "dovetail/v1/admin.pb.h"
#include "gtest/gtest.h"

namespace dovetail::tools {
namespace {

void AddSegment(uint32_t index, uint64_t steps, uint64_t busy, v1::WorkerStatus* worker) {
  v1::SegmentStatus* segment = worker->add_segments();
  segment->set_index(index);
  segment->set_steps(steps);
  segment->set_busy_microseconds(busy);
}

void AddRoute(std::initializer_list<v1::OpKind> kinds, v1::GetPlanResponse* plan) {
  v1::RouteSegment* segment = plan->add_route();
  for (const v1::OpKind kind : kinds) segment->add_ops()->set_kind(kind);
}

// Three layers with experts on the CPU, the rest on a card; the head is the card's too.
v1::GetPlanResponse HybridPlan() {
  v1::GetPlanResponse plan;
  AddRoute({v1::OP_KIND_EMBEDDING}, &plan);
  for (int layer = 0; layer < 3; ++layer) {
    AddRoute({v1::OP_KIND_ATTENTION, v1::OP_KIND_ROUTER, v1::OP_KIND_SHARED_EXPERTS}, &plan);
    AddRoute({v1::OP_KIND_EXPERTS, v1::OP_KIND_EXPERTS}, &plan);
  }
  AddRoute({v1::OP_KIND_NORM, v1::OP_KIND_LM_HEAD}, &plan);
  return plan;
}

v1::GetStatusResponse HybridStatus() {
  v1::GetStatusResponse status;
  v1::WorkerStatus* cpu = status.add_workers();
  cpu->set_name("cpu:0");
  AddSegment(0, 10, 100, cpu);
  for (const auto& [index, busy] : {std::pair{2u, 30'000u}, {4u, 50'000u}, {6u, 40'000u}}) {
    AddSegment(index, 10, busy, cpu);
  }
  v1::WorkerStatus* card = status.add_workers();
  card->set_name("cuda:0");
  for (const uint32_t index : {1u, 3u, 5u}) AddSegment(index, 20, 10'000, card);
  AddSegment(7, 20, 9'900 * 2, card);
  return status;
}

TEST(SegmentTimesTest, SumsByWorkerAndKind) {
  EXPECT_EQ(
      SegmentTimesTable(HybridStatus(), HybridPlan()),
      "  a step's time                                segments      time  share  slowest "
      "segment\n"
      "  cpu:0     experts                                   3  12.00 ms   83 %       4: 5.00 "
      "ms\n"
      "  cuda:0    attention, router, shared_experts         3   1.50 ms   10 %       5: 0.50 "
      "ms\n"
      "  cuda:0    norm, lm_head                             1   0.99 ms    7 %       7: 0.99 "
      "ms\n"
      "  cpu:0     embedding                                 1   0.01 ms    0 %       0: 0.01 "
      "ms\n");
}

TEST(SegmentTimesTest, WithoutAPlanByWorker) {
  EXPECT_EQ(SegmentTimesTable(HybridStatus(), v1::GetPlanResponse()),
            "  a step's time  segments      time  share  slowest segment\n"
            "  cpu:0                 4  12.01 ms   83 %       4: 5.00 ms\n"
            "  cuda:0                4   2.49 ms   17 %       7: 0.99 ms\n");
}

TEST(SegmentTimesTest, NothingBeforeTheFirstStep) {
  v1::GetStatusResponse status;
  EXPECT_EQ(SegmentTimesTable(status, HybridPlan()), "");
  AddSegment(0, 0, 0, status.add_workers());
  EXPECT_EQ(SegmentTimesTable(status, HybridPlan()), "");
}

}  // namespace
}  // namespace dovetail::tools
