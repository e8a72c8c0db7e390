// GrpcServicesTest: the client-facing gRPC services on a real server, over a real engine whose
// workers are fakes. The fixture of the tests of this folder that need that.
#ifndef DOVETAIL_TESTS_INTEGRATION_GRPC_SERVICES_FIXTURE_H_
#define DOVETAIL_TESTS_INTEGRATION_GRPC_SERVICES_FIXTURE_H_

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "coordinator/generation.h"
#include "coordinator/service/admin_service.h"
#include "coordinator/service/grpc_server.h"
#include "coordinator/service/health_service.h"
#include "coordinator/service/inference_service.h"
#include "dovetail/v1/admin.grpc.pb.h"
#include "dovetail/v1/inference.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {

inline constexpr absl::Duration kPatience = absl::Seconds(20);
inline constexpr int kContext = 40'000;
inline constexpr size_t kMaxUnread = 4000;

template <typename Condition>
bool WaitFor(const Condition& condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

class GrpcServicesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(::testing::TempDir(), "/grpc-services-", ::getpid(), ".gguf");
    testing::TinyLlamaOptions tiny;
    testing::WriteTinyLlama(path_, tiny);
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(path_));
    ASSERT_OK_AND_ASSIGN(config_, model::LoadModelConfig(*file_));
    ASSERT_OK_AND_ASSIGN(tokenizer_, model::Tokenizer::Create(*file_));
    StepShape shape;
    shape.max_rows = 64;
    shape.max_sequences = 4;
    shape.max_logit_rows = 4;
    shape.context_length = kContext;
    shape.num_kv_blocks = 2 * kContext / kKvBlockTokens;
    shape.vocab_size = config_.vocab_size;
    EngineOptions options;
    options.shape = shape;
    options.vocab_size = config_.vocab_size;
    options.hidden_size = config_.hidden_size;
    options.chunk_size = 32;
    engine_ = std::make_unique<Engine>(options);
    workers_ =
        std::make_shared<testing::FakeWorkers>(shape, config_.vocab_size, config_.hidden_size);
    engine_->SetPipeline(workers_->MakePipeline());
    generation_ = std::make_unique<GenerationService>("tiny", &config_, tokenizer_.get(), nullptr,
                                                      engine_.get(), kContext, 0);
    StartServer();
  }

  void StartServer() {
    InferenceOptions inference;
    ModelEntry entry;
    entry.name = "tiny";
    entry.aliases = {"small"};
    entry.generation = generation_.get();
    entry.engine = engine_.get();
    entry.facts.file_bytes = file_->file_bytes();
    entry.context_length = kContext;
    models_ = ModelDirectory({entry});
    inference.models = &models_;
    inference.max_unread_bytes = kMaxUnread;
    inference.keys = &keys_;
    inference_service_ = MakeInferenceService(inference);
    AdminHooks hooks;
    hooks.status = [this](const std::string& model) -> absl::StatusOr<StatusSnapshot> {
      if (model.empty()) return status_;
      return absl::NotFoundError(absl::StrCat("The model `", model, "` does not exist"));
    };
    hooks.plan = [this](const std::string& model) -> absl::StatusOr<ModelPlan> {
      if (!plan_.ok()) return plan_.status();
      return ModelPlan{"tiny", *plan_};
    };
    hooks.drain = [this](absl::Duration timeout) {
      drain_timeout_ = timeout;
      return 3;
    };
    hooks.request_exit = [this] { exit_requested_.Notify(); };
    hooks.keys = &keys_;
    hooks.explain = [this](
                        const std::string& model,
                        const std::string& name) -> absl::StatusOr<std::vector<ModuleExplanation>> {
      if (!plan_.ok()) return plan_.status();
      return ExplainPlan(*plan_, nullptr, name);
    };
    hooks.sequences = [this](const std::string&) -> absl::StatusOr<std::vector<ModelSequences>> {
      absl::StatusOr<std::vector<SequenceInfo>> list = engine_->ListSequences(kPatience);
      if (!list.ok()) return list.status();
      return std::vector<ModelSequences>{{"tiny", *std::move(list)}};
    };
    admin_service_ = MakeAdminService(std::move(hooks));
    health_ = std::make_unique<HealthService>(
        std::set<std::string>{"dovetail.v1.InferenceService", "model/tiny"});
    ASSERT_OK_AND_ASSIGN(
        server_, GrpcServer::Start(server_options_,
                                   {{"dovetail.v1.InferenceService", inference_service_.get()},
                                    {"dovetail.v1.AdminService", admin_service_.get()},
                                    {"grpc.health.v1.Health", health_->service()}}));
    grpc::ChannelArguments args;
    // A client that does not read holds little, so that the server notices soon.
    args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1024);
    args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    channel_ =
        grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()), credentials_, args);
    stub_ = v1::InferenceService::NewStub(channel_);
  }

  void TearDown() override {
    if (health_ != nullptr) health_->Shutdown();
    if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
    server_ = nullptr;
    admin_service_ = nullptr;
    inference_service_ = nullptr;
    generation_ = nullptr;  // its grammars' threads may be about to submit
    engine_ = nullptr;
    if (workers_ != nullptr) {
      EXPECT_THAT(workers_->errors(), ::testing::IsEmpty());
    }
    std::filesystem::remove(path_);
  }

  static v1::GenerateRequest IdsRequest(const std::vector<int32_t>& ids, int max_tokens) {
    v1::GenerateRequest request;
    request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    if (max_tokens > 0) request.set_max_tokens(static_cast<uint32_t>(max_tokens));
    request.set_ignore_eos(true);
    return request;
  }

  // Runs Generate to its end.
  grpc::Status Generate(const v1::GenerateRequest& request,
                        std::vector<v1::GenerateResponse>* responses,
                        absl::Duration deadline = kPatience) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
    auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) responses->push_back(response);
    return reader->Finish();
  }
  bool EngineIsFree() {
    return WaitFor([this] {
      const EngineStats stats = engine_->stats();
      return stats.running == 0 && stats.waiting == 0 && stats.kv_blocks_used == 0;
    });
  }

  std::string path_;
  std::unique_ptr<model::GgufFile> file_;
  model::ModelConfig config_;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<testing::FakeWorkers> workers_;
  std::unique_ptr<GenerationService> generation_;
  ApiKeys keys_;
  GrpcServerOptions server_options_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_ = grpc::InsecureChannelCredentials();
  ModelDirectory models_;
  StatusSnapshot status_;
  absl::StatusOr<Plan> plan_ = absl::UnavailableError("there is no plan yet");
  absl::Duration drain_timeout_;
  absl::Notification exit_requested_;
  std::unique_ptr<grpc::Service> inference_service_;
  std::unique_ptr<grpc::Service> admin_service_;
  std::unique_ptr<HealthService> health_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_TESTS_INTEGRATION_GRPC_SERVICES_FIXTURE_H_
