// The worker's side of Attach against a coordinator that a test plays, over real gRPC on loopback.

#include "worker/cluster_client.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "dovetail/v1/cluster.grpc.pb.h"
#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"
#include "transport/edge_listener.h"
#include "transport/run_dir.h"
#include "transport/worker_plan.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using Stream = grpc::ServerReaderWriter<v1::WorkerCommand, v1::WorkerEvent>;

// Hands each attached stream to the test's function, one after the other.
class FakeClusterService final : public v1::ClusterService::Service {
 public:
  grpc::Status Attach(grpc::ServerContext*, Stream* stream) override {
    std::function<grpc::Status(Stream*)> handler;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (handlers_.empty()) return {grpc::StatusCode::UNAVAILABLE, "nobody waits"};
      handler = handlers_.front();
      handlers_.pop_front();
    }
    return handler(stream);
  }
  void OnAttach(std::function<grpc::Status(Stream*)> handler) {
    std::lock_guard<std::mutex> lock(mutex_);
    handlers_.push_back(std::move(handler));
  }

 private:
  std::mutex mutex_;
  std::deque<std::function<grpc::Status(Stream*)>> handlers_;
};

v1::WorkerEvent ReadUntil(Stream* stream, v1::WorkerEvent::EventCase wanted) {
  v1::WorkerEvent event;
  while (stream->Read(&event)) {
    if (event.event_case() == wanted) return event;
    if (event.has_failure()) ADD_FAILURE() << event.failure().message();
  }
  ADD_FAILURE() << "the stream ended before event " << wanted;
  return event;
}

void WriteRegistered(Stream* stream, int interval_ms = 50, int timeout_ms = 5000) {
  v1::WorkerCommand command;
  command.mutable_registered()->set_heartbeat_interval_ms(interval_ms);
  command.mutable_registered()->set_heartbeat_timeout_ms(timeout_ms);
  stream->Write(command);
}

grpc::Status ShutDown(Stream* stream) {
  v1::WorkerCommand command;
  command.mutable_shutdown()->set_reason("the test is over");
  stream->Write(command);
  v1::WorkerEvent event;
  while (stream->Read(&event)) {
  }
  return grpc::Status::OK;
}

class ClusterClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = absl::StrCat(::testing::TempDir(), "cluster_client-", getpid());
    std::filesystem::remove_all(dir_);
    ASSERT_OK_AND_ASSIGN(run_dir_, transport::RunDir::Create(dir_));
    StartServer("127.0.0.1:0");
    facts_.worker = "cpu:0";
    facts_.num_threads = 2;
    facts_.read_bandwidth_gb_per_s = 12.5;
    facts_.kernels = *kernels::SelectTable("");
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    std::filesystem::remove_all(dir_);
  }

  void StartServer(const std::string& address) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  // A client with its executor, served on a thread.
  struct Worker {
    Worker(const std::string& coordinator, const std::string& run_dir, const DeviceFacts& facts)
        : Worker({.coordinator = coordinator, .run_dir = run_dir}, facts) {}
    Worker(const ClusterClientOptions& options, const DeviceFacts& facts)
        : client(options),
          executor({.worker = facts.worker, .num_threads = 2, .kernels = facts.kernels},
                   client.events()),
          result(std::async(std::launch::async,
                            [this, facts] { return client.Run(facts, &executor); })) {}
    ~Worker() {
      client.Stop();
      if (result.valid()) result.wait();
    }
    absl::Status Wait() {
      if (result.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
        return absl::DeadlineExceededError("Run did not return");
      }
      return result.get();
    }
    ClusterClient client;
    Executor executor;
    std::future<absl::Status> result;
  };

  std::string dir_;
  std::unique_ptr<transport::RunDir> run_dir_;
  FakeClusterService service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  DeviceFacts facts_;
};

TEST_F(ClusterClientTest, RegistersBeatsAndShutsDown) {
  v1::Register registered;
  v1::Heartbeat heartbeat;
  service_.OnAttach([&](Stream* stream) {
    registered = ReadUntil(stream, v1::WorkerEvent::kRegister).register_();
    WriteRegistered(stream);
    heartbeat = ReadUntil(stream, v1::WorkerEvent::kHeartbeat).heartbeat();
    return ShutDown(stream);
  });
  Worker worker(address(), dir_, facts_);
  EXPECT_OK(worker.Wait());
  EXPECT_EQ(registered.protocol_version(), 4u);
  EXPECT_EQ(registered.worker(), "cpu:0");
  EXPECT_EQ(registered.kind(), "cpu");
  EXPECT_EQ(registered.run_dir_id(), run_dir_->id());
  EXPECT_EQ(registered.num_threads(), 2u);
  EXPECT_EQ(registered.numa_node(), -1);
  EXPECT_GT(registered.memory_total_bytes(), registered.memory_available_bytes());
  EXPECT_GT(registered.memory_available_bytes(), 0u);
  EXPECT_EQ(registered.read_bandwidth_gb_per_s(), 12.5);
  EXPECT_EQ(registered.isa(), facts_.kernels->name);
  EXPECT_EQ(registered.weight_types_size(), static_cast<int>(SupportedWeightTypes().size()));
  EXPECT_GT(heartbeat.resident_bytes(), 1u << 20);
}

TEST_F(ClusterClientTest, LoadsConnectsAndComputes) {
  const std::string model = dir_ + "/model.gguf";
  testing::WriteTinyLlama(model);
  transport::WorkerPlan plan;
  {
    ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(model));
    ASSERT_OK_AND_ASSIGN(const auto config, model::LoadModelConfig(*file));
    plan = {.plan_id = 3,
            .model_path = model,
            .model_fingerprint = file->fingerprint(),
            .route = {{"cpu:0", model::OpsOf(config)}},
            .step_shape = {.max_rows = 16,
                           .max_sequences = 2,
                           .max_logit_rows = 16,
                           .context_length = 64,
                           .num_kv_blocks = 4},
            .ring_bytes = 1 << 16};
  }
  ASSERT_OK_AND_ASSIGN(auto exchange, transport::Exchange::Create(run_dir_->ExchangePath(9),
                                                                  transport::ExchangeSpec::ForRoute(
                                                                      plan.route, 9, 1 << 16)));
  v1::Loaded loaded;
  bool progressed = false;
  transport::StepOutput output;
  service_.OnAttach([&](Stream* stream) {
    ReadUntil(stream, v1::WorkerEvent::kRegister);
    WriteRegistered(stream);
    v1::WorkerCommand command;
    transport::ToProto(plan, command.mutable_load()->mutable_plan());
    stream->Write(command);
    progressed = ReadUntil(stream, v1::WorkerEvent::kLoadProgress).load_progress().bytes_done() > 0;
    loaded = ReadUntil(stream, v1::WorkerEvent::kLoaded).loaded();
    command.mutable_connect()->set_epoch(9);
    // As a coordinator says it that has the directory mounted elsewhere.
    command.mutable_connect()->set_exchange_file("/elsewhere/" +
                                                 run_dir_->ExchangePath(9).substr(dir_.size() + 1));
    stream->Write(command);
    EXPECT_EQ(ReadUntil(stream, v1::WorkerEvent::kConnected).connected().epoch(), 9u);

    transport::StepFrame frame;
    frame.header.epoch = 9;
    frame.header.hidden_size = 64;
    frame.header.num_sequences = frame.header.num_rows = frame.header.num_block_ids = 1;
    frame.header.num_logit_rows = 1;
    frame.sequences = {{.sequence_id = 4,
                        .num_rows = 1,
                        .num_blocks = 1,
                        .num_logit_rows = 1,
                        .flags = transport::SequenceStep::kSample,
                        .sampling = {.temperature = 0}}};
    frame.block_ids = {0};
    frame.tokens = {1};
    frame.logit_rows = {0};
    frame.targets = {-1};
    auto sender = exchange->Sender(transport::kCoordinator, "cpu:0");
    auto receiver = exchange->Receiver("cpu:0", transport::kCoordinator);
    EXPECT_OK(transport::SendStep(**sender, frame, {}, absl::Seconds(10)));
    output.Reserve(plan.step_shape, 320, 64);
    EXPECT_OK(transport::ReceiveOutput(**receiver, plan.step_shape, 9, 320, 64, &output,
                                       absl::Seconds(10)));
    return ShutDown(stream);
  });
  Worker worker(address(), dir_, facts_);
  EXPECT_OK(worker.Wait());
  EXPECT_TRUE(progressed);
  EXPECT_EQ(loaded.plan_id(), 3u);
  EXPECT_GT(loaded.weight_bytes(), 0u);
  EXPECT_FALSE(loaded.reattached());
  ASSERT_EQ(output.sequences.size(), 1u);
  EXPECT_GE(output.sequences[0].token, 0);
}

// It shows the key, says where it listens, and lets in whoever has the key that it is given.
TEST_F(ClusterClientTest, AWorkerOfAnotherHostListens) {
  ASSERT_OK_AND_ASSIGN(const auto listener, transport::EdgeListener::Start({"127.0.0.1", 0}));
  const std::string edge_key(transport::kEdgeKeyBytes, 'e');
  const transport::EdgeId edge = {edge_key, 1, transport::kCoordinator, "host-b/cpu:0",
                                  transport::EdgeKind::kSteps};
  v1::Register registered;
  service_.OnAttach([&](Stream* stream) {
    registered = ReadUntil(stream, v1::WorkerEvent::kRegister).register_();
    v1::WorkerCommand command;
    command.mutable_registered()->set_heartbeat_interval_ms(50);
    command.mutable_registered()->set_heartbeat_timeout_ms(10'000);
    command.mutable_registered()->set_edge_key(edge_key);
    stream->Write(command);
    ReadUntil(stream, v1::WorkerEvent::kHeartbeat);  // the key is there
    std::thread dials([&] {
      EXPECT_OK(transport::DialEdge(edge, {"127.0.0.1", listener->port()}, absl::Seconds(20), [] {
                  return false;
                }).status());
    });
    EXPECT_OK(listener->Await(edge, absl::Seconds(20), [] { return false; }).status());
    dials.join();
    return ShutDown(stream);
  });
  DeviceFacts facts = facts_;
  facts.worker = "host-b/cpu:0";
  Worker worker({.coordinator = address(),
                 .cluster_key = "the-cluster's-key",
                 .data_address = "10.0.0.2:7000",
                 .listener = listener.get()},
                facts);
  EXPECT_OK(worker.Wait());
  EXPECT_EQ(registered.worker(), "host-b/cpu:0");
  EXPECT_EQ(registered.kind(), "cpu");
  EXPECT_EQ(registered.run_dir_id(), "");
  EXPECT_EQ(registered.cluster_key(), "the-cluster's-key");
  EXPECT_EQ(registered.data_address(), "10.0.0.2:7000");
}

TEST_F(ClusterClientTest, ReportsAPlanThatItCannotLoad) {
  std::string message;
  service_.OnAttach([&](Stream* stream) {
    ReadUntil(stream, v1::WorkerEvent::kRegister);
    WriteRegistered(stream);
    v1::WorkerCommand command;
    command.mutable_load()->mutable_plan()->set_model_path("/nowhere.gguf");
    stream->Write(command);
    v1::WorkerEvent event;
    while (stream->Read(&event) && !event.has_failure()) {
    }
    message = event.failure().message();
    return ShutDown(stream);
  });
  Worker worker(address(), dir_, facts_);
  EXPECT_OK(worker.Wait());
  EXPECT_FALSE(message.empty());
}

TEST_F(ClusterClientTest, DialsAgainWithTheSameIncarnation) {
  std::vector<uint64_t> incarnations;
  const auto attach = [&](Stream* stream) {
    incarnations.push_back(ReadUntil(stream, v1::WorkerEvent::kRegister).register_().incarnation());
    WriteRegistered(stream);
  };
  service_.OnAttach([&](Stream* stream) {
    attach(stream);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "going down");
  });
  service_.OnAttach([&](Stream* stream) {
    attach(stream);
    return ShutDown(stream);
  });
  Worker worker(address(), dir_, facts_);
  EXPECT_OK(worker.Wait());
  ASSERT_EQ(incarnations.size(), 2u);
  EXPECT_EQ(incarnations[0], incarnations[1]);
  EXPECT_NE(incarnations[0], 0u);
}

TEST_F(ClusterClientTest, LeavesACoordinatorThatFallsSilent) {
  service_.OnAttach([&](Stream* stream) {
    ReadUntil(stream, v1::WorkerEvent::kRegister);
    WriteRegistered(stream, 50, 300);
    // Never acknowledges a heartbeat.
    v1::WorkerEvent event;
    while (stream->Read(&event)) {
    }
    return grpc::Status::OK;
  });
  service_.OnAttach([&](Stream* stream) { return ShutDown(stream); });
  Worker worker(address(), dir_, facts_);
  EXPECT_OK(worker.Wait());
}

TEST_F(ClusterClientTest, AcknowledgedHeartbeatsKeepTheLease) {
  int beats = 0;
  service_.OnAttach([&](Stream* stream) {
    ReadUntil(stream, v1::WorkerEvent::kRegister);
    WriteRegistered(stream, 50, 300);
    v1::WorkerCommand ack;
    ack.mutable_heartbeat_ack();
    // A second is more than three timeouts.
    for (; beats < 20; ++beats) {
      ReadUntil(stream, v1::WorkerEvent::kHeartbeat);
      stream->Write(ack);
    }
    return ShutDown(stream);
  });
  Worker worker(address(), dir_, facts_);
  EXPECT_OK(worker.Wait());
  EXPECT_EQ(beats, 20);
}

TEST_F(ClusterClientTest, GivesUpWhereItIsNotWanted) {
  service_.OnAttach([](Stream*) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "worker \"cpu:0\" is in no plan");
  });
  Worker worker(address(), dir_, facts_);
  EXPECT_THAT(worker.Wait(),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("in no plan")));
}

TEST_F(ClusterClientTest, WaitsForRunDirAndCoordinator) {
  server_->Shutdown();
  server_.reset();
  run_dir_.reset();
  std::filesystem::remove_all(dir_);
  std::string id;
  service_.OnAttach([&](Stream* stream) {
    id = ReadUntil(stream, v1::WorkerEvent::kRegister).register_().run_dir_id();
    return ShutDown(stream);
  });
  Worker worker(address(), dir_, facts_);
  absl::SleepFor(absl::Milliseconds(300));
  StartServer(address());
  absl::SleepFor(absl::Milliseconds(300));
  ASSERT_OK_AND_ASSIGN(run_dir_, transport::RunDir::Create(dir_));
  EXPECT_OK(worker.Wait());
  EXPECT_EQ(id, run_dir_->id());
}

TEST_F(ClusterClientTest, StopsWhileNobodyAnswers) {
  server_->Shutdown();
  Worker worker(address(), dir_, facts_);
  absl::SleepFor(absl::Milliseconds(100));
  const absl::Time start = absl::Now();
  worker.client.Stop();
  EXPECT_OK(worker.Wait());
  EXPECT_LT(absl::Now() - start, absl::Seconds(3));
}

}  // namespace
}  // namespace dovetail::worker
