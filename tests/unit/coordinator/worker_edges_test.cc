#include "coordinator/worker_edges.h"

#include "gmock/gmock.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::vector<Op> kOps = {{OpKind::kMlp, 0}};

Route Through(std::initializer_list<const char*> workers) {
  Route route;
  for (const char* worker : workers) route.push_back({worker, kOps});
  return route;
}

TEST(WorkerEdgesTest, EveryEdgeToAndFromTheWorkerHasItsKind) {
  const Route route = Through({"cuda:0", "cuda:1", "cpu:0"});
  EXPECT_THAT(EdgesOf(route, GpuLinks::kNccl, "cuda:0"),
              ElementsAre("coordinator -> cuda:0 (ring)", "cuda:0 -> cuda:1 (nccl)"));
  EXPECT_THAT(EdgesOf(route, GpuLinks::kNccl, "cuda:1"),
              ElementsAre("cuda:0 -> cuda:1 (nccl)", "cuda:1 -> cpu:0 (ring)"));
  EXPECT_THAT(EdgesOf(route, GpuLinks::kNccl, "cpu:0"),
              ElementsAre("cuda:1 -> cpu:0 (ring)", "cpu:0 -> coordinator (ring)"));
  EXPECT_THAT(EdgesOf(route, GpuLinks::kNccl, "cpu:1"), IsEmpty());
}

TEST(WorkerEdgesTest, LinksAreThoseThatWereConfigured) {
  const Route route = Through({"cpu:0", "simt:0", "simt:1", "cpu:0"});
  EXPECT_THAT(EdgesOf(route, GpuLinks::kHost, "simt:0"),
              ElementsAre("cpu:0 -> simt:0 (ring)", "simt:0 -> simt:1 (ring)"));
  EXPECT_THAT(EdgesOf(route, GpuLinks::kIpc, "simt:0"),
              ElementsAre("cpu:0 -> simt:0 (ring)", "simt:0 -> simt:1 (ipc)"));
  EXPECT_THAT(EdgesOf(route, GpuLinks::kAuto, "simt:0"),
              ElementsAre("cpu:0 -> simt:0 (ring)", "simt:0 -> simt:1 (ipc or ring)"));
}

TEST(WorkerEdgesTest, AWorkerAloneIsJoinedToTheCoordinator) {
  EXPECT_THAT(EdgesOf(Through({"cuda:0"}), GpuLinks::kNccl, "cuda:0"),
              ElementsAre("coordinator <-> cuda:0 (ring)"));
}

// Experts of 61 layers on the CPU, and a second GPU: the route comes by many times.
TEST(WorkerEdgesTest, APairIsNamedOnce) {
  Route route;
  for (int layer = 0; layer < 61; ++layer) {
    const char* gpu = layer < 30 ? "cuda:0" : "cuda:1";
    route.push_back({gpu, {{OpKind::kAttention, layer}, {OpKind::kRouter, layer}}});
    route.push_back({"cpu:0", {{OpKind::kExperts, layer, 0, 256}}});
  }
  route.push_back({"cuda:1", {{OpKind::kLmHead}}});
  route.push_back({"cuda:0", kOps});
  route.push_back({"cuda:1", kOps});
  EXPECT_THAT(EdgesOf(route, GpuLinks::kNccl, "cpu:0"),
              ElementsAre("cuda:0 <-> cpu:0 (ring)", "cpu:0 <-> cuda:1 (ring)"));
  EXPECT_THAT(EdgesOf(route, GpuLinks::kNccl, "cuda:1"),
              ElementsAre("cpu:0 <-> cuda:1 (ring)", "cuda:1 <-> cuda:0 (nccl)",
                          "cuda:1 -> coordinator (ring)"));
}

// Steps come to the first of the members by a ring, and go on from it by a link.
TEST(WorkerEdgesTest, MembersGatherRows) {
  const Route route = {{"cuda:0", kOps},
                       {"cuda:1", kOps, {{"cuda:1", 1}, {"cuda:2", 1}, {"cpu:0", 1}}},
                       {"cuda:0", kOps}};
  EXPECT_THAT(EdgesOf(route, GpuLinks::kNccl, "cuda:1"),
              ElementsAre("cuda:0 -> cuda:1 (ring)", "cuda:1 -> cuda:2 (ring)",
                          "cuda:1 -> cpu:0 (ring)", "cuda:1 -> cuda:0 (nccl)",
                          "cuda:1 <-> cuda:2 (rows)", "cuda:1 <-> cpu:0 (rows)"));
  EXPECT_THAT(
      EdgesOf(route, GpuLinks::kNccl, "cpu:0"),
      ElementsAre("cuda:1 -> cpu:0 (ring)", "cuda:1 <-> cpu:0 (rows)", "cuda:2 <-> cpu:0 (rows)"));
}

}  // namespace
}  // namespace dovetail::coordinator
