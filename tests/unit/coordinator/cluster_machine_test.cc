#include "coordinator/cluster_machine.h"

#include <unistd.h>

#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "dovetail/v1/cluster.pb.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;

// Remembers what the machine did with a worker's stream.
class FakeLink : public WorkerLink {
 public:
  void Send(const v1::WorkerCommand& command) override { commands.push_back(command); }
  void Close(const absl::Status& status) override {
    if (!closed) close_status = status;
    closed = true;
  }
  void Abandon(const absl::Status& status) override { Close(status); }
  void Next() override { ++reads; }

  // Commands of one kind, in order.
  std::vector<v1::WorkerCommand> Of(v1::WorkerCommand::CommandCase kind) const {
    std::vector<v1::WorkerCommand> found;
    for (const v1::WorkerCommand& command : commands) {
      if (command.command_case() == kind) found.push_back(command);
    }
    return found;
  }
  uint64_t plan_id() const {
    const auto loads = Of(v1::WorkerCommand::kLoad);
    return loads.empty() ? 0 : loads.back().load().plan().plan_id();
  }
  uint64_t connect_epoch() const {
    const auto connects = Of(v1::WorkerCommand::kConnect);
    return connects.empty() ? 0 : connects.back().connect().epoch();
  }

  std::vector<v1::WorkerCommand> commands;
  bool closed = false;
  absl::Status close_status;
  int reads = 0;
};

class ClusterMachineTest : public ::testing::Test {
 protected:
  ClusterMachineTest() {
    dir_ = absl::StrCat(::testing::TempDir(), "/cluster-", ::getpid(), "-", ++counter_);
    run_dir_ = transport::RunDir::Create(dir_).value();
    shape_.max_rows = 4;
    shape_.max_sequences = 2;
    shape_.max_logit_rows = 2;
    shape_.context_length = 64;
    shape_.num_kv_blocks = 4;
    Rebuild({"cpu:0", "cpu:1"});
  }
  ~ClusterMachineTest() override {
    machine_.reset();
    run_dir_->RemoveAll();
  }

  void Rebuild(const std::vector<std::string>& workers) {
    ClusterOptions options;
    options.workers = workers;
    options.run_dir = run_dir_.get();
    options.model_path = "/models/m.gguf";
    options.model_fingerprint = 77;
    options.ring_bytes = 4096;
    options.worker_timeout = absl::Milliseconds(1500);
    options.make_plan = [this](const std::vector<ClusterMember>& members) {
      return MakeTestPlan(members);
    };
    options.make_pipeline = [this](std::shared_ptr<transport::Exchange> exchange,
                                   const Plan&) -> absl::StatusOr<std::unique_ptr<Pipeline>> {
      exchange_ = exchange;
      auto fake = std::make_shared<testing::FakeWorkers>(shape_, 32, 8, exchange->epoch());
      return fake->MakePipeline();
    };
    options.set_pipeline = [this](std::unique_ptr<Pipeline> p) { pipeline_ = std::move(p); };
    options.suspend_pipeline = [this](const absl::Status& reason) {
      suspended_.push_back(reason);
      pipeline_ = nullptr;
    };
    options.clear_pipeline = [this](const absl::Status& reason) {
      cleared_.push_back(reason);
      pipeline_ = nullptr;
    };
    options.publish = [this] {
      if (on_publish_) on_publish_();
    };
    machine_ = std::make_unique<ClusterMachine>(std::move(options));
  }

  // Layer 0 and what comes before on the first worker, the rest on the second; a third gets
  // nothing.
  absl::StatusOr<Plan> MakeTestPlan(const std::vector<ClusterMember>& members) {
    ++num_plans_;
    if (!plan_status_.ok()) return plan_status_;
    Plan plan;
    plan.shape = shape_;
    for (size_t i = 0; i < std::min<size_t>(2, members.size()); ++i) {
      PlacedWorker& worker = plan.workers.emplace_back();
      worker.device = members[i].device;
      worker.ops = {i == 0 ? Op{OpKind::kEmbedding, -1} : Op{OpKind::kLmHead, -1}};
      worker.memory.weights_packed = 1000;
      plan.route.push_back({members[i].device.name, worker.ops});
    }
    return plan;
  }

  std::shared_ptr<FakeLink> NewLink() { return std::make_shared<FakeLink>(); }

  v1::WorkerEvent RegisterEvent(const std::string& name, uint64_t incarnation) {
    v1::WorkerEvent event;
    v1::Register& r = *event.mutable_register_();
    r.set_protocol_version(kClusterProtocolVersion);
    r.set_worker(name);
    r.set_incarnation(incarnation);
    r.set_pid(4711);
    r.set_run_dir_id(run_dir_->id());
    r.set_num_threads(2);
    r.set_numa_node(-1);
    r.set_memory_available_bytes(1 << 30);
    r.set_packed_layout("p16");
    r.add_weight_types("F32");
    return event;
  }
  std::shared_ptr<FakeLink> Register(const std::string& name, uint64_t incarnation = 1) {
    auto link = NewLink();
    machine_->OnEvent(link, RegisterEvent(name, incarnation), now_);
    return link;
  }
  void Loaded(const std::shared_ptr<FakeLink>& link, uint64_t plan_id = 0) {
    v1::WorkerEvent event;
    event.mutable_loaded()->set_plan_id(plan_id != 0 ? plan_id : link->plan_id());
    event.mutable_loaded()->set_weight_bytes(1000);
    machine_->OnEvent(link, event, now_);
  }
  void Connected(const std::shared_ptr<FakeLink>& link, uint64_t epoch = 0) {
    v1::WorkerEvent event;
    event.mutable_connected()->set_epoch(epoch != 0 ? epoch : link->connect_epoch());
    machine_->OnEvent(link, event, now_);
  }
  void Heartbeat(const std::shared_ptr<FakeLink>& link) {
    v1::WorkerEvent event;
    event.mutable_heartbeat()->set_steps(5);
    machine_->OnEvent(link, event, now_);
  }
  void Failure(const std::shared_ptr<FakeLink>& link, absl::StatusCode code,
               const std::string& message) {
    v1::WorkerEvent event;
    event.mutable_failure()->set_code(static_cast<uint32_t>(code));
    event.mutable_failure()->set_message(message);
    machine_->OnEvent(link, event, now_);
  }
  // Time passes, and the owner ticks when it is due.
  void Pass(absl::Duration duration) {
    const absl::Time end = now_ + duration;
    for (machine_->Tick(now_); now_ < end; machine_->Tick(now_)) {
      now_ = std::min(end, now_ + machine_->UntilNextTick(now_));
    }
  }
  // Both workers registered, loaded and connected.
  void MakeReady() {
    a_ = Register("cpu:0");
    b_ = Register("cpu:1");
    Loaded(a_);
    Loaded(b_);
    Connected(a_);
    Connected(b_);
    ASSERT_EQ(machine_->state(), ServingState::kReady) << machine_->message();
  }
  bool ExchangeFileExists(uint64_t epoch) {
    return std::filesystem::exists(run_dir_->ExchangePath(epoch));
  }

  static inline int counter_ = 0;
  std::string dir_;
  std::unique_ptr<transport::RunDir> run_dir_;
  StepShape shape_;
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  absl::Status plan_status_;
  int num_plans_ = 0;
  std::shared_ptr<transport::Exchange> exchange_;
  std::unique_ptr<Pipeline> pipeline_;
  std::function<void()> on_publish_;
  std::vector<absl::Status> suspended_;
  std::vector<absl::Status> cleared_;
  std::shared_ptr<FakeLink> a_, b_;
  std::unique_ptr<ClusterMachine> machine_;
};

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
    const auto member = CheckRegister(event.register_(), {"cpu:0"}, run_dir_->id());
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

TEST_F(ClusterMachineTest, RecoversFromALostWorker) {
  MakeReady();
  const uint64_t plan_id = a_->plan_id();
  machine_->OnClosed(b_, absl::UnavailableError("its connection ended"), now_);
  ASSERT_EQ(suspended_.size(), 1u);
  EXPECT_THAT(suspended_[0], StatusIs(absl::StatusCode::kUnavailable,
                                      HasSubstr("worker cpu:1 was lost: its connection ended")));
  EXPECT_TRUE(cleared_.empty()) << "its requests wait";
  EXPECT_TRUE(exchange_->aborted());
  EXPECT_FALSE(ExchangeFileExists(1));
  EXPECT_EQ(machine_->state(), ServingState::kRecovering);
  EXPECT_THAT(machine_->message(), HasSubstr("waiting for cpu:1"));
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

}  // namespace
}  // namespace dovetail::coordinator
