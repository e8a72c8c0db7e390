#include "tests/unit/coordinator/cluster_machine_fixture.h"
#include "transport/edge_listener.h"

namespace dovetail::coordinator {
namespace {

TEST_F(ClusterMachineTest, GoesFromRegistrationToReady) {
  EXPECT_EQ(machine_->message(), "waiting for cpu:0, cpu:1");
  auto a = Register("cpu:0");
  EXPECT_EQ(a->Of(v1::WorkerCommand::kRegistered).size(), 1u);
  EXPECT_TRUE(a->Of(v1::WorkerCommand::kLoad).empty()) << "planned before all have registered";
  EXPECT_EQ(machine_->state(), ServingState::kWaitingForWorkers);
  EXPECT_EQ(machine_->message(), "waiting for cpu:1");

  auto b = Register("cpu:1");
  EXPECT_EQ(machine_->state(), ServingState::kLoading);
  const auto loads = a->Of(v1::WorkerCommand::kLoad);
  ASSERT_EQ(loads.size(), 1u);
  EXPECT_EQ(loads[0].load().plan().model_path(), "/models/m.gguf");
  EXPECT_EQ(loads[0].load().plan().model_fingerprint(), 77u);
  EXPECT_EQ(loads[0].load().plan().route_size(), 2);
  EXPECT_EQ(a->plan_id(), b->plan_id());

  Loaded(a);
  EXPECT_EQ(a->connect_epoch(), 0u) << "connected before all have loaded";
  Loaded(b);
  EXPECT_EQ(a->connect_epoch(), 1u);
  EXPECT_EQ(b->connect_epoch(), 1u);
  EXPECT_TRUE(ExchangeFileExists(1));
  EXPECT_EQ(a->Of(v1::WorkerCommand::kConnect)[0].connect().exchange_file(),
            std::filesystem::path(run_dir_->ExchangePath(1)).filename());

  Connected(a);
  EXPECT_EQ(pipeline_, nullptr);
  Connected(b);
  ASSERT_NE(pipeline_, nullptr);
  EXPECT_EQ(pipeline_->epoch(), 1u);
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  EXPECT_EQ(machine_->epoch(), 1u);
}

TEST_F(ClusterMachineTest, ShowsLoadProgress) {
  auto a = Register("cpu:0");
  auto b = Register("cpu:1");
  v1::WorkerEvent event;
  event.mutable_load_progress()->set_plan_id(a->plan_id());
  event.mutable_load_progress()->set_bytes_done(250);
  event.mutable_load_progress()->set_bytes_total(1000);
  const uint64_t before = machine_->revision();
  machine_->OnEvent(a, event, now_);
  EXPECT_GT(machine_->revision(), before);
  EXPECT_EQ(machine_->message(), "loading the model: cpu:0 25 %, cpu:1 0 %");
  EXPECT_EQ(machine_->Workers()[0].load_bytes_done, 250u);
  EXPECT_EQ(machine_->Workers()[0].load_bytes_total, 1000u);
  EXPECT_EQ(machine_->Workers()[0].pid, 4711);
}

TEST_F(ClusterMachineTest, RefusesWhoDoesNotBelong) {
  struct Case {
    std::function<void(v1::Register&)> change;
    absl::StatusCode code;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](v1::Register& r) { r.set_protocol_version(99); }, absl::StatusCode::kFailedPrecondition,
       "cluster protocol 99"},
      {[](v1::Register& r) { r.set_worker("cpu:7"); }, absl::StatusCode::kInvalidArgument,
       "`cpu:7` is not one of the configured workers (cpu:0, cpu:1)"},
      {[](v1::Register& r) { r.set_run_dir_id("elsewhere"); },
       absl::StatusCode::kFailedPrecondition, "another run directory"},
      {[](v1::Register& r) { r.set_num_threads(0); }, absl::StatusCode::kInvalidArgument,
       "num_threads 0"},
      {[](v1::Register& r) { r.set_packed_layout("p99"); }, absl::StatusCode::kInvalidArgument,
       "`p99`"},
      {[](v1::Register& r) { r.clear_weight_types(); }, absl::StatusCode::kInvalidArgument,
       "no weight type"},
  };
  for (const char* layout : {"p16", "raw", "in_place"}) {
    v1::WorkerEvent event = RegisterEvent("cpu:0", 1);
    event.mutable_register_()->set_packed_layout(layout);
    const auto member = CheckRegister(event.register_(), {{"cpu:0"}, run_dir_->id(), ""});
    ASSERT_OK(member);
    EXPECT_EQ(PackedLayoutName(member->device.layout), layout);
  }
  for (const Case& c : cases) {
    auto link = NewLink();
    v1::WorkerEvent event = RegisterEvent("cpu:0", 1);
    c.change(*event.mutable_register_());
    machine_->OnEvent(link, event, now_);
    EXPECT_TRUE(link->closed) << c.message;
    EXPECT_THAT(link->close_status, StatusIs(c.code, HasSubstr(c.message)));
    EXPECT_FALSE(machine_->Workers()[0].attached);
  }
}

TEST_F(ClusterMachineTest, RefusesAFirstMessageThatIsNotRegister) {
  auto link = NewLink();
  Heartbeat(link);
  EXPECT_THAT(link->close_status,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("`register`")));
}

TEST_F(ClusterMachineTest, RefusesASecondProcessOfTheSameName) {
  auto first = Register("cpu:0", 1);
  auto second = Register("cpu:0", 2);
  EXPECT_THAT(second->close_status,
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("pid 4711")));
  EXPECT_FALSE(first->closed);
}

TEST_F(ClusterMachineTest, ANewProcessTakesOverFromASilentOne) {
  auto first = Register("cpu:0", 1);
  Pass(absl::Milliseconds(1100));  // two heartbeats missed, the timeout not yet reached
  auto second = Register("cpu:0", 2);
  EXPECT_TRUE(first->closed);
  EXPECT_FALSE(second->closed) << second->close_status;
  EXPECT_TRUE(machine_->Workers()[0].attached);
}

TEST_F(ClusterMachineTest, TheSameProcessMayDialAgain) {
  auto first = Register("cpu:0", 1);
  auto second = Register("cpu:0", 1);
  EXPECT_TRUE(first->closed);
  EXPECT_FALSE(second->closed);
  // What the old stream still reports changes nothing.
  machine_->OnClosed(first, absl::UnavailableError("reset"), now_);
  EXPECT_TRUE(machine_->Workers()[0].attached);
}

TEST_F(ClusterMachineTest, ARefusedPlanIsFinal) {
  plan_status_ = absl::ResourceExhaustedError("cpu:0 needs 9 GiB, has 8 GiB");
  auto a = Register("cpu:0");
  auto b = Register("cpu:1");
  EXPECT_EQ(machine_->state(), ServingState::kFailed);
  EXPECT_THAT(machine_->failure(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("needs 9 GiB")));
  EXPECT_TRUE(a->Of(v1::WorkerCommand::kLoad).empty());
  plan_status_ = absl::OkStatus();
  Heartbeat(a);
  EXPECT_EQ(machine_->state(), ServingState::kFailed);
  EXPECT_EQ(a->Of(v1::WorkerCommand::kHeartbeatAck).size(), 1u) << "workers stay attached";
}

TEST_F(ClusterMachineTest, AFailedLoadIsFinal) {
  auto a = Register("cpu:0");
  auto b = Register("cpu:1");
  Failure(b, absl::StatusCode::kFailedPrecondition, "the model file differs");
  EXPECT_EQ(machine_->state(), ServingState::kFailed);
  EXPECT_THAT(machine_->failure(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("worker cpu:1 cannot load its share: the model file differs")));
}

TEST_F(ClusterMachineTest, AConnectionThatCannotBeIsFinal) {
  auto a = Register("cpu:0");
  auto b = Register("cpu:1");
  Loaded(a);
  Loaded(b);
  Connected(a);
  Failure(b, absl::StatusCode::kUnimplemented, "cpu:0 -> cpu:1: there is no such library");
  EXPECT_EQ(machine_->state(), ServingState::kFailed);
  EXPECT_THAT(machine_->failure(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("worker cpu:1 cannot connect: cpu:0 -> cpu:1: there is no")));
}

TEST_F(ClusterMachineTest, IgnoresAnswersToOlderQuestions) {
  auto a = Register("cpu:0");
  auto b = Register("cpu:1");
  Loaded(a, a->plan_id() + 1);
  Loaded(b);
  EXPECT_EQ(a->connect_epoch(), 0u);
  Loaded(a);
  Connected(a, 99);
  Connected(b);
  EXPECT_EQ(pipeline_, nullptr);
  Connected(a);
  EXPECT_NE(pipeline_, nullptr);
}

TEST_F(ClusterMachineTest, ShutdownTellsEveryWorker) {
  MakeReady();
  machine_->Shutdown("bye");
  for (const auto& link : {a_, b_}) {
    ASSERT_EQ(link->Of(v1::WorkerCommand::kShutdown).size(), 1u);
    EXPECT_EQ(link->Of(v1::WorkerCommand::kShutdown)[0].shutdown().reason(), "bye");
    EXPECT_TRUE(link->closed);
    EXPECT_OK(link->close_status);
  }
  EXPECT_THAT(cleared_.at(0), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("bye")));
  auto late = Register("cpu:0", 3);
  EXPECT_THAT(late->close_status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting")));
}

TEST_F(ClusterMachineTest, ReadsOneEventAtATime) {
  auto a = Register("cpu:0");
  EXPECT_EQ(a->reads, 1);
  Heartbeat(a);
  EXPECT_EQ(a->reads, 2);
}

// A worker of another host gets no file; both ends of an edge learn where it goes.
TEST_F(ClusterMachineTest, WorkersOfAnotherHostAreToldWhereEdgesGo) {
  Rebuild({"cpu:0", "host-b/cpu:0"});
  a_ = Register("cpu:0");
  b_ = RegisterFar("10.0.0.2:7000", kClusterKey);
  Loaded(a_);
  Loaded(b_);
  const v1::Connect near = a_->Of(v1::WorkerCommand::kConnect).back().connect();
  const v1::Connect far = b_->Of(v1::WorkerCommand::kConnect).back().connect();
  EXPECT_NE(near.exchange_file(), "");
  EXPECT_EQ(far.exchange_file(), "");
  ASSERT_EQ(near.remote_edges_size(), 1);
  EXPECT_EQ(near.remote_edges(0).from(), "cpu:0");
  EXPECT_EQ(near.remote_edges(0).to(), "host-b/cpu:0");
  EXPECT_EQ(near.remote_edges(0).address(), "10.0.0.2:7000") << "it dials";
  ASSERT_EQ(far.remote_edges_size(), 2) << "from cpu:0, and to the coordinator";
  for (const v1::RemoteEdge& edge : far.remote_edges()) EXPECT_EQ(edge.address(), "");
  const auto registered = b_->Of(v1::WorkerCommand::kRegistered).back().registered();
  EXPECT_EQ(registered.edge_key().size(), transport::kEdgeKeyBytes);
}

TEST_F(ClusterMachineTest, WithoutTheKeyNobodyOfAnotherHostGetsIn) {
  Rebuild({"cpu:0", "host-b/cpu:0"});
  b_ = RegisterFar("10.0.0.2:7000", "");
  EXPECT_TRUE(b_->closed);
  EXPECT_EQ(b_->close_status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(b_->commands.empty()) << "not the key of edges either";
}

// The coordinator dials the worker of another host, where nobody listens.
TEST_F(ClusterMachineTest, AnEdgeOfTheCoordinatorThatDoesNotComeUpEndsTheEpoch) {
  Rebuild({"host-b/cpu:0"});
  b_ = RegisterFar("127.0.0.1:1", kClusterKey);
  Loaded(b_);
  ASSERT_EQ(b_->connect_epoch(), 1u);
  for (int i = 0; i < 600 && b_->Of(v1::WorkerCommand::kDisconnect).empty(); ++i) {
    absl::SleepFor(absl::Milliseconds(50));
    machine_->Tick(now_);
  }
  ASSERT_FALSE(b_->Of(v1::WorkerCommand::kDisconnect).empty());
  EXPECT_EQ(b_->connect_epoch(), 1u) << "not at once again";
  Pass(absl::Seconds(1));
  EXPECT_EQ(b_->connect_epoch(), 2u);
}

TEST_F(ClusterMachineTest, AFailureOfAnEarlierEpochIsOver) {
  MakeReady();
  v1::WorkerEvent event;
  event.mutable_failure()->set_code(static_cast<uint32_t>(absl::StatusCode::kUnavailable));
  event.mutable_failure()->set_message("edge cpu:0 -> cpu:1: the other end closed the connection");
  event.mutable_failure()->set_epoch(machine_->epoch() + 7);  // any but this one
  machine_->OnEvent(a_, event, now_);
  EXPECT_EQ(machine_->state(), ServingState::kReady);
  event.mutable_failure()->set_epoch(machine_->epoch());
  machine_->OnEvent(a_, event, now_);
  EXPECT_NE(machine_->state(), ServingState::kReady);
}

}  // namespace
}  // namespace dovetail::coordinator
