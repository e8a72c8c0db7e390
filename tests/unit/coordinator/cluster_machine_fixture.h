// What tests of the cluster's state machine share: links that remember what was sent, and a machine
// whose plan, pipeline and time are the test's.
#ifndef DOVETAIL_TESTS_UNIT_COORDINATOR_CLUSTER_MACHINE_FIXTURE_H_
#define DOVETAIL_TESTS_UNIT_COORDINATOR_CLUSTER_MACHINE_FIXTURE_H_

#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/cluster_machine.h"
#include "dovetail/v1/cluster.pb.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {

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
  static constexpr char kClusterKey[] = "0123456789abcdef";
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
    options.cluster_key = kClusterKey;
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
    r.set_kind(name.substr(0, name.find(':')));
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
  // host-b/cpu:0, of another host.
  std::shared_ptr<FakeLink> RegisterFar(const std::string& data_address, const std::string& key) {
    v1::WorkerEvent event = RegisterEvent("host-b/cpu:0", 1);
    event.mutable_register_()->set_kind("cpu");
    event.mutable_register_()->set_cluster_key(key);
    event.mutable_register_()->set_data_address(data_address);
    auto link = NewLink();
    machine_->OnEvent(link, event, now_);
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
  void MakeReady(const std::string& a = "cpu:0", const std::string& b = "cpu:1") {
    a_ = Register(a);
    b_ = Register(b);
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

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_TESTS_UNIT_COORDINATOR_CLUSTER_MACHINE_FIXTURE_H_
