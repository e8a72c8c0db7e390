#include "coordinator/status_snapshot.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::SizeIs;

StatusSnapshot Model(const std::string& name, ServingState state, const std::string& message = "") {
  StatusSnapshot status;
  status.model = name;
  status.state = state;
  status.message = message;
  status.epoch = 3;
  status.engine.running = 2;
  status.engine.kv_blocks_total = 100;
  status.engine.generated_tokens = 7;
  status.engine.decode_lanes = 1;
  status.engine.predicted_wait_seconds = 0.5;
  status.workers.resize(1);
  status.workers[0].name = "cpu:0";
  status.workers[0].model = name;
  return status;
}

TEST(StatusSnapshotTest, OneModelIsTheServer) {
  const StatusSnapshot status = CombineStatus({Model("a", ServingState::kLoading, "40 %")});
  EXPECT_EQ(status.model, "a");
  EXPECT_EQ(status.epoch, 3u);
  EXPECT_EQ(status.message, "40 %");
  EXPECT_THAT(status.models, SizeIs(0));
  ASSERT_THAT(ModelsOf(status), SizeIs(1));
  EXPECT_EQ(ModelsOf(status)[0].model, "a");
}

TEST(StatusSnapshotTest, SeveralAddUp) {
  const StatusSnapshot status =
      CombineStatus({Model("a", ServingState::kReady), Model("b", ServingState::kReady)});
  EXPECT_EQ(status.state, ServingState::kReady);
  EXPECT_EQ(status.model, "");
  EXPECT_EQ(status.engine.running, 4);
  EXPECT_EQ(status.engine.kv_blocks_total, 200);
  EXPECT_EQ(status.engine.generated_tokens, 14u);
  EXPECT_EQ(status.engine.decode_lanes, 2);
  EXPECT_EQ(status.engine.predicted_wait_seconds, 0.5);
  ASSERT_THAT(status.workers, SizeIs(2));
  EXPECT_EQ(status.workers[1].model, "b");
  ASSERT_THAT(ModelsOf(status), SizeIs(2));
  EXPECT_EQ(ModelsOf(status)[1].epoch, 3u);
}

TEST(StatusSnapshotTest, TheOneFurthestFromReadySpeaks) {
  const auto combined = [](ServingState a, ServingState b) {
    const StatusSnapshot status = CombineStatus({Model("a", a, "why a"), Model("b", b, "why b")});
    return std::make_pair(status.state, status.message);
  };
  EXPECT_EQ(combined(ServingState::kReady, ServingState::kLoading),
            std::make_pair(ServingState::kLoading, std::string("b: why b")));
  EXPECT_EQ(combined(ServingState::kRecovering, ServingState::kLoading),
            std::make_pair(ServingState::kRecovering, std::string("a: why a")));
  EXPECT_EQ(combined(ServingState::kFailed, ServingState::kRecovering),
            std::make_pair(ServingState::kFailed, std::string("a: why a")));
}

}  // namespace
}  // namespace dovetail::coordinator
