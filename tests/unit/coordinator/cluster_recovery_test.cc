// The cluster's state machine when it loses workers or the pipeline.
#include "tests/unit/coordinator/cluster_machine_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::StartsWith;

TEST_F(ClusterMachineTest, RecoversFromALostWorker) {
  MakeReady();
  const uint64_t plan_id = a_->plan_id();
  machine_->OnClosed(b_, absl::UnavailableError("its connection ended"), now_);
  ASSERT_EQ(suspended_.size(), 1u);
  EXPECT_THAT(suspended_[0],
              StatusIs(absl::StatusCode::kUnavailable,
                       "worker cpu:1 was lost: its connection ended; its edges are closed: "
                       "cpu:0 -> cpu:1 (ring), cpu:1 -> coordinator (ring)"));
  EXPECT_TRUE(cleared_.empty()) << "its requests wait";
  EXPECT_TRUE(exchange_->aborted());
  EXPECT_FALSE(ExchangeFileExists(1));
  EXPECT_EQ(machine_->state(), ServingState::kRecovering);
  EXPECT_EQ(machine_->message(), absl::StrCat(suspended_[0].message(), "; waiting for cpu:1"));
  ASSERT_EQ(a_->Of(v1::WorkerCommand::kDisconnect).size(), 1u);
  EXPECT_EQ(a_->Of(v1::WorkerCommand::kDisconnect)[0].disconnect().epoch(), 1u);
  EXPECT_FALSE(a_->closed) << "the other worker keeps its weights and its stream";

  auto b2 = Register("cpu:1", 2);
  EXPECT_EQ(machine_->state(), ServingState::kLoading);
  EXPECT_EQ(b2->plan_id(), plan_id);
  EXPECT_EQ(a_->Of(v1::WorkerCommand::kLoad).size(), 1u) << "the other worker loads only once";
  EXPECT_EQ(num_plans_, 1);
  Loaded(b2);
  EXPECT_EQ(a_->connect_epoch(), 2u);
  Connected(a_);
  Connected(b2);
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  EXPECT_EQ(machine_->epoch(), 2u);
  EXPECT_EQ(machine_->Workers()[1].restarts, 1);
}

// A peer may see the end of its link before the coordinator sees that of the process, and the
// engine the end of the epoch before both.
TEST_F(ClusterMachineTest, ALostWorkersEdgesAreNamedWhoeverSawItFirst) {
  const std::string lost =
      "worker simt:1 was lost: its connection ended; its edges are closed: "
      "simt:0 -> simt:1 (nccl), simt:1 -> coordinator (ring)";
  shape_.gpu_links = GpuLinks::kNccl;
  for (const bool by_peer : {true, false}) {
    suspended_.clear();
    Rebuild({"simt:0", "simt:1"});
    MakeReady("simt:0", "simt:1");
    if (by_peer) {
      Failure(a_, absl::StatusCode::kUnavailable, "simt:0 -> simt:1: the other end is gone");
    } else {
      machine_->OnPipelineLost(1, absl::AbortedError("the epoch ended"), now_);
    }
    EXPECT_THAT(suspended_.at(0).message(),
                HasSubstr(by_peer ? "simt:0 was lost: simt:0 -> simt:1: the other end is gone; its "
                                    "edges are closed: coordinator -> simt:0 (ring), simt:0 -> "
                                    "simt:1 (nccl)"
                                  : "the pipeline broke: the epoch ended"));
    machine_->OnClosed(b_, absl::UnavailableError("its connection ended"), now_);
    ASSERT_EQ(suspended_.size(), 2u);
    EXPECT_THAT(suspended_[1], StatusIs(absl::StatusCode::kUnavailable, lost));
    EXPECT_THAT(machine_->message(), StartsWith(lost + "; waiting for "));
  }
}

TEST_F(ClusterMachineTest, AWorkerThatWasInNoEpochHasNoEdges) {
  MakeReady();
  machine_->OnClosed(b_, absl::UnavailableError("gone"), now_);
  auto b = Register("cpu:1", 2);
  machine_->OnClosed(b, absl::UnavailableError("gone again"), now_);
  EXPECT_EQ(machine_->message(), "worker cpu:1 was lost: gone again; waiting for cpu:1");
  EXPECT_EQ(suspended_.size(), 1u);
}

TEST_F(ClusterMachineTest, WhatIsFinalStaysTheReasonWhenAWorkerIsLost) {
  MakeReady();
  machine_->Fail(absl::UnavailableError("cpu:1 keeps dying"));
  machine_->OnClosed(a_, absl::UnavailableError("gone"), now_);
  EXPECT_EQ(suspended_.size(), 1u);
  EXPECT_EQ(machine_->message(), "cpu:1 keeps dying");
}

TEST_F(ClusterMachineTest, TheStateIsSeenBeforeRequestsEnd) {
  MakeReady();
  std::vector<ServingState> published;
  on_publish_ = [&] {
    published.push_back(machine_->state());
    EXPECT_FALSE(exchange_->aborted());
    EXPECT_TRUE(suspended_.empty());
  };
  machine_->OnClosed(b_, absl::UnavailableError("gone"), now_);
  EXPECT_THAT(published, ::testing::ElementsAre(ServingState::kRecovering));
  EXPECT_EQ(suspended_.size(), 1u);
}

TEST_F(ClusterMachineTest, LosesAWorkerThatIsSilent) {
  MakeReady();
  Pass(absl::Seconds(1));
  Heartbeat(a_);
  EXPECT_EQ(a_->Of(v1::WorkerCommand::kHeartbeatAck).size(), 1u);
  EXPECT_EQ(machine_->Workers()[0].steps, 5u);
  Pass(absl::Milliseconds(499));
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  Pass(absl::Milliseconds(2));
  EXPECT_EQ(machine_->state(), ServingState::kRecovering);
  EXPECT_FALSE(a_->closed);
  EXPECT_TRUE(b_->closed);
  EXPECT_THAT(b_->close_status,
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no sign of life for 1.5s")));
}

TEST_F(ClusterMachineTest, APauseOfThisProcessIsNotTheWorkersSilence) {
  MakeReady();
  for (const absl::Duration pause : {absl::Seconds(1.4), absl::Seconds(1.7), absl::Hours(8)}) {
    Pass(absl::Milliseconds(500));  // they spoke as late as they may
    now_ += pause;
    Pass(absl::Milliseconds(500));  // and need as long to speak again
    EXPECT_EQ(machine_->state(), ServingState::kReady) << pause;
    Heartbeat(a_);
    Heartbeat(b_);
  }
  Pass(absl::Milliseconds(1501));  // forgiven is what was, not what comes
  EXPECT_EQ(machine_->state(), ServingState::kRecovering);
}

TEST_F(ClusterMachineTest, LosesAWorkerThatDoesNotConnect) {
  auto a = Register("cpu:0");
  auto b = Register("cpu:1");
  Loaded(a);
  Loaded(b);
  Connected(a);
  for (int i = 0; i < 11; ++i) {
    Pass(absl::Seconds(1));
    Heartbeat(a);
    Heartbeat(b);
  }
  EXPECT_TRUE(b->closed);
  EXPECT_FALSE(a->closed);
  EXPECT_THAT(b->close_status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("not connect")));
  EXPECT_EQ(a->Of(v1::WorkerCommand::kDisconnect).size(), 1u);
}

TEST_F(ClusterMachineTest, AFailureWhileServingLosesTheWorker) {
  MakeReady();
  Failure(b_, absl::StatusCode::kInternal, "cannot map");
  EXPECT_EQ(machine_->state(), ServingState::kRecovering);
  EXPECT_THAT(suspended_.at(0), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cannot map")));
}

TEST_F(ClusterMachineTest, WhatIsFinalEndsTheRequestsThatWait) {
  MakeReady();
  machine_->OnClosed(b_, absl::UnavailableError("gone"), now_);
  EXPECT_TRUE(cleared_.empty());
  machine_->Fail(absl::UnavailableError("cpu:1 keeps dying"));
  EXPECT_THAT(cleared_.at(0),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cpu:1 keeps dying")));
}

TEST_F(ClusterMachineTest, IgnoresAFailureAboutWhatIsOver) {
  MakeReady();
  Failure(b_, absl::StatusCode::kAborted, "the epoch ended");
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  machine_->OnClosed(a_, absl::UnavailableError("gone"), now_);
  Failure(b_, absl::StatusCode::kUnavailable, "its peer is gone");
  EXPECT_FALSE(b_->closed);
}

TEST_F(ClusterMachineTest, ABrokenPipelineStartsANewEpochAfterAPause) {
  MakeReady();
  machine_->OnPipelineLost(7, absl::InternalError("an older one"), now_);
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  machine_->OnPipelineLost(1, absl::InternalError("a step took too long"), now_);
  EXPECT_EQ(machine_->state(), ServingState::kLoading);
  EXPECT_TRUE(exchange_->aborted());
  EXPECT_EQ(a_->connect_epoch(), 1u) << "not at once: it may break again";
  const absl::Duration due = machine_->UntilNextTick(now_);
  EXPECT_GT(due, absl::ZeroDuration());
  EXPECT_LE(due, absl::Seconds(1));
  Pass(due);
  EXPECT_EQ(a_->connect_epoch(), 2u);
  Connected(a_);
  Connected(b_);
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  // The pause grows while epochs end at once.
  machine_->OnPipelineLost(2, absl::InternalError("again"), now_);
  Pass(absl::Milliseconds(300));
  EXPECT_EQ(a_->connect_epoch(), 2u);
  Pass(absl::Milliseconds(200));
  EXPECT_EQ(a_->connect_epoch(), 3u);
}

TEST_F(ClusterMachineTest, AWorkerWithoutOpsIsNotMissed) {
  Rebuild({"cpu:0", "cpu:1", "cpu:2"});
  auto c = Register("cpu:2");
  MakeReady();
  EXPECT_TRUE(c->Of(v1::WorkerCommand::kLoad).empty());
  machine_->OnClosed(c, absl::UnavailableError("gone"), now_);
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  EXPECT_TRUE(suspended_.empty());
}

TEST_F(ClusterMachineTest, PlansAgainForAnotherDevice) {
  MakeReady();
  const uint64_t plan_id = a_->plan_id();
  machine_->OnClosed(b_, absl::UnavailableError("gone"), now_);
  auto b2 = NewLink();
  v1::WorkerEvent event = RegisterEvent("cpu:1", 2);
  event.mutable_register_()->set_num_threads(7);
  machine_->OnEvent(b2, event, now_);
  EXPECT_EQ(num_plans_, 2);
  EXPECT_NE(b2->plan_id(), plan_id);
  EXPECT_EQ(a_->plan_id(), b2->plan_id()) << "both load under the new plan";
}

}  // namespace
}  // namespace dovetail::coordinator
