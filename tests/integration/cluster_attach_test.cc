// ClusterService on a real server, with workers that speak the protocol and compute nothing.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "coordinator/cluster.h"
#include "coordinator/engine.h"
#include "coordinator/service/cluster_service.h"
#include "coordinator/service/grpc_server.h"
#include "dovetail/v1/cluster.grpc.pb.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr int kVocab = 64;

template <typename Condition>
bool WaitFor(const Condition& condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

// A worker without a device: registers, says yes to Load and Connect, and beats until it is
// stopped.
class FakeWorker {
 public:
  struct Options {
    std::string name = "cpu:0";
    std::string model;  // whose worker it is, where there are several
    std::string run_dir_id;
    uint64_t incarnation = 1;
    uint32_t protocol_version = kClusterProtocolVersion;
    bool beats = true;
    std::string load_failure;  // instead of Loaded
  };
  FakeWorker(int port, Options options)
      : options_(std::move(options)),
        stub_(v1::ClusterService::NewStub(grpc::CreateChannel(absl::StrCat("127.0.0.1:", port),
                                                              grpc::InsecureChannelCredentials()))),
        thread_([this] { Run(); }) {}
  ~FakeWorker() { Kill(); }

  // As SIGKILL would: the connection ends without a word.
  void Kill() {
    context_.TryCancel();
    Join();
  }
  // The end of the stream as the worker sees it.
  grpc::Status Join() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }
  int loads() const { return loads_.load(); }
  int disconnects() const { return disconnects_.load(); }
  bool told_to_shut_down() const { return shut_down_.load(); }

 private:
  void Run() {
    auto stream = stub_->Attach(&context_);
    v1::WorkerEvent event;
    v1::Register& r = *event.mutable_register_();
    r.set_protocol_version(options_.protocol_version);
    r.set_worker(options_.name);
    r.set_kind("cpu");
    r.set_model(options_.model);
    r.set_incarnation(options_.incarnation);
    r.set_pid(1234);
    r.set_run_dir_id(options_.run_dir_id);
    r.set_num_threads(1);
    r.set_numa_node(-1);
    r.set_memory_available_bytes(1 << 30);
    r.set_packed_layout("p16");
    r.add_weight_types("F32");
    Write(stream.get(), event);
    std::atomic<bool> ended{false};
    std::thread heart([&] {
      v1::WorkerEvent beat;
      beat.mutable_heartbeat();
      while (!ended.load() && options_.beats) {
        Write(stream.get(), beat);
        absl::SleepFor(absl::Milliseconds(50));
      }
    });
    v1::WorkerCommand command;
    while (stream->Read(&command)) Answer(stream.get(), command);
    ended = true;
    heart.join();
    status_ = stream->Finish();
  }
  using Stream = grpc::ClientReaderWriter<v1::WorkerEvent, v1::WorkerCommand>;
  void Answer(Stream* stream, const v1::WorkerCommand& command) {
    v1::WorkerEvent event;
    if (command.has_load()) {
      ++loads_;
      const uint64_t plan_id = command.load().plan().plan_id();
      event.mutable_load_progress()->set_plan_id(plan_id);
      event.mutable_load_progress()->set_bytes_done(50);
      event.mutable_load_progress()->set_bytes_total(100);
      Write(stream, event);
      if (options_.load_failure.empty()) {
        event.mutable_loaded()->set_plan_id(plan_id);
        event.mutable_loaded()->set_weight_bytes(100);
      } else {
        event.mutable_failure()->set_code(static_cast<uint32_t>(absl::StatusCode::kNotFound));
        event.mutable_failure()->set_message(options_.load_failure);
      }
      Write(stream, event);
    } else if (command.has_connect()) {
      event.mutable_connected()->set_epoch(command.connect().epoch());
      Write(stream, event);
    } else if (command.has_disconnect()) {
      ++disconnects_;
    } else if (command.has_shutdown()) {
      shut_down_ = true;
    }
  }
  void Write(Stream* stream, const v1::WorkerEvent& event) {
    absl::MutexLock lock(&write_mutex_);
    stream->Write(event);
  }

  const Options options_;
  std::unique_ptr<v1::ClusterService::Stub> stub_;
  grpc::ClientContext context_;
  absl::Mutex write_mutex_;
  std::atomic<int> loads_{0};
  std::atomic<int> disconnects_{0};
  std::atomic<bool> shut_down_{false};
  grpc::Status status_;
  std::thread thread_;
};

// Waits for one request's end.
class WaitingSink : public TokenSink {
 public:
  void OnToken(int32_t) override {}
  void OnFinish(FinishReason, const absl::Status& status, const RequestUsage&) override {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    finished_at_ = absl::Now();
    finished_ = true;
  }
  bool Wait() {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&finished_), kPatience);
  }
  absl::Status status() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }
  absl::Time finished_at() {
    absl::MutexLock lock(&mutex_);
    return finished_at_;
  }

 private:
  absl::Mutex mutex_;
  bool finished_ = false;
  absl::Status status_;
  absl::Time finished_at_;
};

class ClusterAttachTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string dir =
        absl::StrCat(::testing::TempDir(), "/attach-", ::getpid(), "-", ++counter_);
    ASSERT_OK_AND_ASSIGN(run_dir_, transport::RunDir::Create(dir));
    shape_.max_rows = 8;
    shape_.max_sequences = 2;
    shape_.max_logit_rows = 2;
    shape_.context_length = 512;
    shape_.num_kv_blocks = 32;
    EngineOptions engine_options;
    engine_options.shape = shape_;
    engine_options.vocab_size = kVocab;
    engine_options.hidden_size = 8;
    engine_options.chunk_size = 6;
    engine_options.step_timeout = absl::Milliseconds(500);
    engine_options.step_timeout_per_row = absl::ZeroDuration();
    engine_options.on_pipeline_lost = [this](const absl::Status& s) {
      cluster_->OnPipelineLost(s);
    };
    engine_ = std::make_unique<Engine>(engine_options);
    cluster_ = std::make_unique<Cluster>(MakeOptions(), [this](const ClusterSnapshot& snapshot) {
      absl::MutexLock lock(&mutex_);
      seen_.push_back(snapshot.message);
    });
    service_ = MakeClusterService([this](const std::string& model) { return Find(model); });
    ASSERT_OK_AND_ASSIGN(server_,
                         GrpcServer::Start({}, {{"dovetail.v1.ClusterService", service_.get()}}));
  }
  void TearDown() override {
    cluster_->Shutdown("the test is over");
    workers_.clear();
    server_->Shutdown(absl::ZeroDuration());
    cluster_ = nullptr;
    engine_ = nullptr;
    run_dir_->RemoveAll();
  }

  ClusterOptions MakeOptions() {
    ClusterOptions options;
    options.workers = {"cpu:0", "cpu:1"};
    options.run_dir = run_dir_.get();
    options.model_path = "/m.gguf";
    options.ring_bytes = 4096;
    options.worker_timeout = absl::Milliseconds(1500);
    options.make_plan = [this](const std::vector<ClusterMember>& members) -> absl::StatusOr<Plan> {
      Plan plan;
      plan.shape = shape_;
      for (const ClusterMember& member : members) {
        PlacedWorker& worker = plan.workers.emplace_back();
        worker.device = member.device;
        worker.ops = {{plan.route.empty() ? OpKind::kEmbedding : OpKind::kLmHead, -1}};
        plan.route.push_back({member.device.name, worker.ops});
      }
      return plan;
    };
    options.make_pipeline = [this](std::shared_ptr<transport::Exchange> exchange,
                                   const Plan&) -> absl::StatusOr<std::unique_ptr<Pipeline>> {
      auto fakes = std::make_shared<testing::FakeWorkers>(shape_, kVocab, 8, exchange->epoch());
      if (hold_) fakes->Hold();
      absl::MutexLock lock(&mutex_);
      pipeline_workers_ = fakes;
      return fakes->MakePipeline();
    };
    options.set_pipeline = [this](std::unique_ptr<Pipeline> p) {
      engine_->SetPipeline(std::move(p));
    };
    options.suspend_pipeline = [this](const absl::Status& s) { engine_->SuspendPipeline(s); };
    options.clear_pipeline = [this](const absl::Status& s) { engine_->ClearPipeline(s); };
    return options;
  }

  absl::StatusOr<Cluster*> Find(const std::string& model) {
    absl::MutexLock lock(&mutex_);
    if (by_model_.empty()) return cluster_.get();
    const auto it = by_model_.find(model);
    if (it == by_model_.end()) return absl::InvalidArgumentError("there is no such model");
    return it->second;
  }
  // One more model with one worker, and nobody who asks it.
  std::unique_ptr<Cluster> AddModel(const std::string& model) {
    ClusterOptions options = MakeOptions();
    options.model = model;
    options.workers = {"cpu:0"};
    options.set_pipeline = [](std::unique_ptr<Pipeline>) {};
    options.suspend_pipeline = options.clear_pipeline = [](const absl::Status&) {};
    auto cluster = std::make_unique<Cluster>(options, [](const ClusterSnapshot&) {});
    absl::MutexLock lock(&mutex_);
    by_model_ = {{"first", cluster_.get()}, {model, cluster.get()}};
    return cluster;
  }

  FakeWorker* AddWorker(FakeWorker::Options options) {
    if (options.run_dir_id.empty()) options.run_dir_id = run_dir_->id();
    workers_.push_back(std::make_unique<FakeWorker>(server_->port(), std::move(options)));
    return workers_.back().get();
  }
  std::shared_ptr<WaitingSink> Submit() {
    auto sink = std::make_shared<WaitingSink>();
    EngineRequest request;
    request.prompt = {1, 2, 3};
    request.max_tokens = 400;
    EXPECT_OK(engine_->Submit(request, sink));
    return sink;
  }

  static inline int counter_ = 0;
  StepShape shape_;
  std::atomic<bool> hold_{false};
  std::unique_ptr<transport::RunDir> run_dir_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<GrpcServer> server_;
  absl::Mutex mutex_;
  std::map<std::string, Cluster*> by_model_;  // where there are several
  std::vector<std::string> seen_;
  std::shared_ptr<testing::FakeWorkers> pipeline_workers_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
};

TEST_F(ClusterAttachTest, WorkersInAnyOrderBecomeAPipeline) {
  EXPECT_EQ(cluster_->WaitReady(absl::Milliseconds(20)).code(),
            absl::StatusCode::kDeadlineExceeded);
  AddWorker({.name = "cpu:1"});
  ASSERT_TRUE(WaitFor([&] { return cluster_->snapshot().workers[1].attached; }));
  EXPECT_EQ(cluster_->snapshot().message, "waiting for cpu:0");
  AddWorker({.name = "cpu:0"});
  ASSERT_OK(cluster_->WaitReady(kPatience));
  EXPECT_EQ(cluster_->snapshot().epoch, 1u);
  ASSERT_NE(cluster_->plan(), nullptr);
  EXPECT_EQ(cluster_->plan()->route.size(), 2u);
  auto sink = Submit();
  ASSERT_TRUE(sink->Wait());
  EXPECT_OK(sink->status());
  absl::MutexLock lock(&mutex_);
  EXPECT_THAT(seen_, ::testing::Contains(HasSubstr("loading the model")));
}

TEST_F(ClusterAttachTest, RequestsWaitForALostWorkerAndGoOn) {
  hold_ = true;
  FakeWorker* a = AddWorker({.name = "cpu:0"});
  FakeWorker* b = AddWorker({.name = "cpu:1"});
  ASSERT_OK(cluster_->WaitReady(kPatience));
  auto sink = Submit();
  b->Kill();
  ASSERT_TRUE(WaitFor([&] { return cluster_->snapshot().state == ServingState::kRecovering; }));
  EXPECT_THAT(engine_->Submit({.prompt = {1}, .max_tokens = 1}, std::make_shared<WaitingSink>()),
              StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
  EXPECT_TRUE(WaitFor([&] { return a->disconnects() == 1; }));

  hold_ = false;
  AddWorker({.name = "cpu:1", .incarnation = 2});
  ASSERT_OK(cluster_->WaitReady(kPatience));
  EXPECT_EQ(cluster_->snapshot().epoch, 2u);
  EXPECT_EQ(cluster_->snapshot().workers[1].restarts, 1);
  EXPECT_EQ(a->loads(), 1);
  ASSERT_TRUE(sink->Wait());
  EXPECT_OK(sink->status());
  auto again = Submit();
  ASSERT_TRUE(again->Wait());
  EXPECT_OK(again->status());
}

TEST_F(ClusterAttachTest, ASilentWorkerIsLost) {
  AddWorker({.name = "cpu:0"});
  FakeWorker* b = AddWorker({.name = "cpu:1", .beats = false});
  ASSERT_OK(cluster_->WaitReady(kPatience));
  ASSERT_TRUE(WaitFor([&] { return cluster_->snapshot().state == ServingState::kRecovering; }));
  const grpc::Status status = b->Join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("no sign of life"));
}

TEST_F(ClusterAttachTest, AStepThatNeverEndsStartsANewEpoch) {
  hold_ = true;
  AddWorker({.name = "cpu:0"});
  AddWorker({.name = "cpu:1"});
  ASSERT_OK(cluster_->WaitReady(kPatience));
  auto sink = Submit();
  ASSERT_TRUE(WaitFor([&] { return engine_->stats().steps > 0; }));
  hold_ = false;  // for the workers of the next epoch
  ASSERT_TRUE(WaitFor([&] { return cluster_->snapshot().epoch == 2; }));  // the step's timeout
  ASSERT_OK(cluster_->WaitReady(kPatience));
  ASSERT_TRUE(sink->Wait());
  EXPECT_OK(sink->status());
  auto again = Submit();
  ASSERT_TRUE(again->Wait());
  EXPECT_OK(again->status());
}

TEST_F(ClusterAttachTest, RefusesWhoDoesNotBelong) {
  EXPECT_EQ(AddWorker({.protocol_version = 9})->Join().error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(AddWorker({.name = "cpu:5"})->Join().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status status = AddWorker({.run_dir_id = "another"})->Join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("run directory"));
  AddWorker({.name = "cpu:0"});
  ASSERT_TRUE(WaitFor([&] { return cluster_->snapshot().workers[0].attached; }));
  EXPECT_EQ(AddWorker({.name = "cpu:0", .incarnation = 2})->Join().error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_TRUE(cluster_->snapshot().workers[0].attached);
}

TEST_F(ClusterAttachTest, WorkersBelongToTheModelThatTheyName) {
  const std::unique_ptr<Cluster> second = AddModel("second");
  AddWorker({.name = "cpu:0", .model = "first"});
  AddWorker({.name = "cpu:1", .model = "first"});
  ASSERT_OK(cluster_->WaitReady(kPatience));
  EXPECT_EQ(second->snapshot().message, "waiting for cpu:0");
  FakeWorker* worker = AddWorker({.name = "cpu:0", .model = "second"});
  ASSERT_OK(second->WaitReady(kPatience));
  // A worker that only the other model has, one of no model, one of a model that is not there.
  const grpc::Status other = AddWorker({.name = "cpu:1", .model = "second"})->Join();
  EXPECT_EQ(other.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(other.error_message(), HasSubstr("not one of the configured workers (cpu:0)"));
  for (const char* model : {"", "third"}) {
    const grpc::Status status = AddWorker({.name = "cpu:0", .model = model})->Join();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(), "there is no such model");
  }
  // The loss of one model's worker is none of the other's business.
  worker->Kill();
  ASSERT_TRUE(WaitFor([&] { return second->snapshot().state == ServingState::kRecovering; }));
  EXPECT_EQ(cluster_->snapshot().state, ServingState::kReady);
  auto sink = Submit();
  ASSERT_TRUE(sink->Wait());
  EXPECT_OK(sink->status());
  AddWorker({.name = "cpu:0", .model = "second", .incarnation = 2});
  ASSERT_OK(second->WaitReady(kPatience));
  EXPECT_EQ(second->snapshot().epoch, 2u);
  EXPECT_EQ(cluster_->snapshot().epoch, 1u);
  second->Shutdown("the test is over");
  cluster_->Shutdown("the test is over");
  workers_.clear();
  server_->Shutdown(absl::ZeroDuration());  // nobody finds a cluster that is gone
}

TEST_F(ClusterAttachTest, AFailedLoadEndsInFailed) {
  AddWorker({.name = "cpu:0"});
  AddWorker({.name = "cpu:1", .load_failure = "/m.gguf: No such file or directory"});
  EXPECT_THAT(cluster_->WaitReady(kPatience),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("worker cpu:1"), HasSubstr("No such file"))));
  EXPECT_EQ(cluster_->snapshot().state, ServingState::kFailed);
}

TEST_F(ClusterAttachTest, ShutdownTellsTheWorkersAndEndsTheirStreams) {
  FakeWorker* a = AddWorker({.name = "cpu:0"});
  FakeWorker* b = AddWorker({.name = "cpu:1"});
  ASSERT_OK(cluster_->WaitReady(kPatience));
  cluster_->Shutdown("the server is shutting down");
  EXPECT_TRUE(a->Join().ok());
  EXPECT_TRUE(b->Join().ok());
  EXPECT_TRUE(a->told_to_shut_down());
  EXPECT_TRUE(b->told_to_shut_down());
  EXPECT_EQ(cluster_->WaitReady(kPatience).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace dovetail::coordinator
