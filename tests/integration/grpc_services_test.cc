// The client-facing gRPC services on a real server, over a real engine whose workers are fakes.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

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
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
namespace health_v1 = ::grpc::health::v1;

constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr int kContext = 40'000;
constexpr size_t kMaxUnread = 4000;

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
    inference.generation = generation_.get();
    inference.file_bytes = file_->file_bytes();
    inference.max_unread_bytes = kMaxUnread;
    inference.keys = &keys_;
    inference_service_ = MakeInferenceService(inference);
    AdminHooks hooks;
    hooks.status = [this] { return status_; };
    hooks.plan = [this] { return plan_; };
    hooks.drain = [this](absl::Duration timeout) {
      drain_timeout_ = timeout;
      return 3;
    };
    hooks.request_exit = [this] { exit_requested_.Notify(); };
    hooks.keys = &keys_;
    hooks.explain =
        [this](const std::string& name) -> absl::StatusOr<std::vector<ModuleExplanation>> {
      if (!plan_.ok()) return plan_.status();
      return ExplainPlan(*plan_, nullptr, name);
    };
    hooks.sequences = [this] { return engine_->ListSequences(kPatience); };
    admin_service_ = MakeAdminService(std::move(hooks));
    health_ =
        std::make_unique<HealthService>(std::set<std::string>{"dovetail.v1.InferenceService"});
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

TEST_F(GrpcServicesTest, GenerateStreamsTheRightTokens) {
  const std::vector<int32_t> prompt = {5, 6, 7};
  v1::GenerateRequest request = IdsRequest(prompt, 20);
  request.mutable_sampling()->set_seed(42);
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_FALSE(responses.empty());
  std::vector<int32_t> tokens;
  std::string text;
  for (const v1::GenerateResponse& response : responses) {
    tokens.insert(tokens.end(), response.token_ids().begin(), response.token_ids().end());
    text += response.text();
  }
  const auto expected = testing::FakeWorkers::Continue(prompt, 20, config_.vocab_size);
  EXPECT_THAT(tokens, ElementsAreArray(expected));
  model::StreamingDetokenizer detokenizer(tokenizer_.get(), false, false);
  std::string expected_text;
  for (int32_t token : expected) expected_text += detokenizer.Push(token);
  expected_text += detokenizer.Finish();
  EXPECT_EQ(text, expected_text);
  EXPECT_EQ(responses.front().seed(), 42u);
  EXPECT_EQ(responses.front().usage().prompt_tokens(), 3u);
  EXPECT_EQ(responses.back().finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(responses.back().usage().prompt_tokens(), 3u);
  EXPECT_EQ(responses.back().usage().completion_tokens(), 20u);
  EXPECT_TRUE(EngineIsFree());
}

TEST_F(GrpcServicesTest, EightClientsAtOnceGetEightAnswers) {
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([this, i] {
      const std::vector<int32_t> prompt = {10 + i, 20 + i};
      std::vector<v1::GenerateResponse> responses;
      const grpc::Status status = Generate(IdsRequest(prompt, 40), &responses);
      EXPECT_TRUE(status.ok()) << status.error_message();
      std::vector<int32_t> tokens;
      for (const v1::GenerateResponse& r : responses) {
        tokens.insert(tokens.end(), r.token_ids().begin(), r.token_ids().end());
      }
      EXPECT_THAT(tokens,
                  ElementsAreArray(testing::FakeWorkers::Continue(prompt, 40, config_.vocab_size)));
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(EngineIsFree());
}

TEST_F(GrpcServicesTest, GenerateRefusesWhatIsWrong) {
  struct Case {
    v1::GenerateRequest request;
    grpc::StatusCode code;
    std::string message;
  };
  v1::GenerateRequest empty;
  v1::GenerateRequest other_model = IdsRequest({1}, 1);
  other_model.set_model("gpt-9");
  v1::GenerateRequest zero = IdsRequest({1}, 0);
  zero.set_max_tokens(0);
  v1::GenerateRequest hot = IdsRequest({1}, 1);
  hot.mutable_sampling()->set_temperature(-1);
  v1::GenerateRequest chat;
  chat.mutable_chat()->add_messages()->set_role("user");
  const std::vector<Case> cases = {
      {empty, grpc::StatusCode::INVALID_ARGUMENT, "`prompt`, `token_ids` and `chat`"},
      {other_model, grpc::StatusCode::NOT_FOUND, "`gpt-9` does not exist"},
      {zero, grpc::StatusCode::INVALID_ARGUMENT, "`max_tokens` must be at least 1, got 0"},
      {hot, grpc::StatusCode::INVALID_ARGUMENT, "`temperature`"},
      {chat, grpc::StatusCode::INVALID_ARGUMENT, "no chat template"},
      {IdsRequest(std::vector<int32_t>(kContext + 5, 1), 1), grpc::StatusCode::INVALID_ARGUMENT,
       absl::StrCat(kContext + 5, " tokens")},
  };
  for (const Case& c : cases) {
    std::vector<v1::GenerateResponse> responses;
    const grpc::Status status = Generate(c.request, &responses);
    EXPECT_EQ(status.error_code(), c.code) << c.message << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(c.message));
    EXPECT_TRUE(responses.empty());
  }
}

TEST_F(GrpcServicesTest, ChoicesAndLogprobsComeApart) {
  v1::GenerateRequest request = IdsRequest({5, 6}, 4);
  request.set_n(3);
  request.set_echo(true);
  request.set_logprobs(2);
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::vector<std::vector<int32_t>> tokens(3);
  std::vector<int> details(3), finished(3);
  for (const v1::GenerateResponse& r : responses) {
    ASSERT_LT(r.choice(), 3u);
    tokens[r.choice()].insert(tokens[r.choice()].end(), r.token_ids().begin(), r.token_ids().end());
    details[r.choice()] += r.logprobs_size();
    finished[r.choice()] += r.finish_reason() == v1::FINISH_REASON_LENGTH ? 1 : 0;
  }
  std::vector<int32_t> expected = {5, 6};
  for (int32_t token : testing::FakeWorkers::Continue({5, 6}, 4, config_.vocab_size)) {
    expected.push_back(token);
  }
  for (int choice = 0; choice < 3; ++choice) {
    EXPECT_THAT(tokens[choice], ElementsAreArray(expected));
    EXPECT_EQ(details[choice], 6);
    EXPECT_EQ(finished[choice], 1);
  }
  EXPECT_FALSE(responses.front().logprobs(0).has_logprob());
  EXPECT_EQ(responses.front().logprobs(1).top_size(), 2);
}

TEST_F(GrpcServicesTest, AFormatIsEnforced) {
  v1::GenerateRequest request;
  request.set_prompt("x");
  request.set_max_tokens(40);
  request.mutable_format()->set_regex("(yes|no)!");
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status = Generate(request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::string text;
  for (const v1::GenerateResponse& r : responses) text += r.text();
  EXPECT_TRUE(text == "yes!" || text == "no!") << text;
  request.mutable_format()->set_json_schema("{");
  status = Generate(request, &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("`format.json_schema`"));
}

TEST_F(GrpcServicesTest, LostWorkersEndAStreamWithTheReason) {
  workers_->Hold();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, IdsRequest({1, 2}, 10));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  engine_->ClearPipeline(absl::UnavailableError("worker cpu:1 was lost"));
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("worker cpu:1 was lost"));
  std::vector<v1::GenerateResponse> responses;
  EXPECT_EQ(Generate(IdsRequest({1}, 1), &responses).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcServicesTest, ACancelledCallFreesItsBlocks) {
  workers_->Hold();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, IdsRequest({1, 2, 3}, 1000));
  workers_->Release(2);
  ASSERT_TRUE(workers_->WaitForSteps(3));
  EXPECT_GT(engine_->stats().kv_blocks_used, 0);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // One step at a time: without its client the sequence must not get far.
  for (int i = 0; i < 200 && engine_->stats().kv_blocks_used > 0; ++i) {
    workers_->Release(1);
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(engine_->stats().kv_blocks_used, 0) << "it went on without its client";
  EXPECT_EQ(engine_->stats().running, 0);
}

TEST_F(GrpcServicesTest, TheClientsDeadlineEndsTheGeneration) {
  workers_->Hold();
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status =
      Generate(IdsRequest({1, 2, 3}, 1000), &responses, absl::Milliseconds(200));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  workers_->Release(1'000'000);
  EXPECT_TRUE(EngineIsFree());
}

TEST_F(GrpcServicesTest, ASlowReaderIsCutOffAndNobodyWaitsForIt) {
  workers_->set_next_token([](absl::Span<const int32_t>) { return 7; });
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, IdsRequest({1, 2, 3}, kContext - 10));
  // It is cut off while its client reads nothing...
  ASSERT_TRUE(workers_->WaitForSteps(1));
  EXPECT_TRUE(EngineIsFree());
  EXPECT_LT(workers_->num_steps(), kContext - 10);
  // ... others are served meanwhile ...
  std::vector<v1::GenerateResponse> responses;
  EXPECT_TRUE(Generate(IdsRequest({9}, 3), &responses).ok());
  // ... and learns why when it reads again.
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr(absl::StrCat(kMaxUnread, " bytes unread")));
}

TEST_F(GrpcServicesTest, TokenizeAndDetokenizeAreInverse) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text("hello, wörld");
  v1::TokenizeResponse ids;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Tokenize(&context, tokenize, &ids).ok());
  ASSERT_GT(ids.ids_size(), 0);
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_ids() = ids.ids();
  v1::DetokenizeResponse text;
  grpc::ClientContext context2;
  ASSERT_TRUE(stub_->Detokenize(&context2, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "hello, wörld");

  detokenize.add_ids(config_.vocab_size);
  grpc::ClientContext context3;
  const grpc::Status status = stub_->Detokenize(&context3, detokenize, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(),
              HasSubstr(absl::StrCat("`ids[", ids.ids_size(), "]` must be from 0 to ",
                                     config_.vocab_size - 1, ", got ", config_.vocab_size)));
}

TEST_F(GrpcServicesTest, ListsTheModel) {
  v1::ListModelsResponse models;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->ListModels(&context, v1::ListModelsRequest(), &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).id(), "tiny");
  EXPECT_EQ(models.models(0).architecture(), "llama");
  EXPECT_EQ(models.models(0).context_length_tokens(), static_cast<uint32_t>(kContext));
  EXPECT_EQ(models.models(0).vocab_size(), static_cast<uint32_t>(config_.vocab_size));
  EXPECT_EQ(models.models(0).file_bytes(), std::filesystem::file_size(path_));
}

TEST_F(GrpcServicesTest, HealthFollowsTheState) {
  auto health = health_v1::Health::NewStub(channel_);
  auto check = [&](const std::string& service, health_v1::HealthCheckResponse* response) {
    grpc::ClientContext context;
    health_v1::HealthCheckRequest request;
    request.set_service(service);
    return health->Check(&context, request, response).error_code();
  };
  health_v1::HealthCheckResponse response;
  ASSERT_EQ(check("", &response), grpc::StatusCode::OK);
  EXPECT_EQ(response.status(), health_v1::HealthCheckResponse::NOT_SERVING) << "before it is ready";
  EXPECT_EQ(check("no.such.Service", &response), grpc::StatusCode::NOT_FOUND);

  grpc::ClientContext watch_context;
  auto watch = health->Watch(&watch_context, health_v1::HealthCheckRequest());
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), health_v1::HealthCheckResponse::NOT_SERVING);
  health_->SetServing(true);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), health_v1::HealthCheckResponse::SERVING);
  ASSERT_EQ(check("dovetail.v1.InferenceService", &response), grpc::StatusCode::OK);
  EXPECT_EQ(response.status(), health_v1::HealthCheckResponse::SERVING);
  health_->Shutdown();
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  ASSERT_EQ(check("", &response), grpc::StatusCode::OK);
  EXPECT_EQ(response.status(), health_v1::HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcServicesTest, AdminShowsStateAndPlan) {
  auto admin = v1::AdminService::NewStub(channel_);
  status_.state = ServingState::kRecovering;
  status_.message = "worker cpu:1 was lost";
  status_.epoch = 4;
  status_.engine.kv_blocks_total = 99;
  WorkerSnapshot worker;
  worker.name = "cpu:1";
  worker.restarts = 2;
  status_.workers.push_back(worker);
  v1::GetStatusResponse status;
  grpc::ClientContext context;
  ASSERT_TRUE(admin->GetStatus(&context, v1::GetStatusRequest(), &status).ok());
  EXPECT_EQ(status.state(), v1::SERVING_STATE_RECOVERING);
  EXPECT_EQ(status.message(), "worker cpu:1 was lost");
  EXPECT_EQ(status.epoch(), 4u);
  EXPECT_EQ(status.kv_blocks_total(), 99u);
  ASSERT_EQ(status.workers_size(), 1);
  EXPECT_EQ(status.workers(0).restarts(), 2u);

  v1::GetPlanResponse plan;
  grpc::ClientContext context2;
  EXPECT_EQ(admin->GetPlan(&context2, v1::GetPlanRequest(), &plan).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  Plan made;
  made.modules.push_back({{OpKind::kMlp, 3}, "model.layers.3.mlp", "cpu:1", "r.yaml:3:3", 77});
  made.route.push_back({"cpu:1", {{OpKind::kMlp, 3}}});
  made.shape.max_rows = 12;
  plan_ = made;
  grpc::ClientContext context3;
  ASSERT_TRUE(admin->GetPlan(&context3, v1::GetPlanRequest(), &plan).ok());
  ASSERT_EQ(plan.modules_size(), 1);
  EXPECT_EQ(plan.modules(0).name(), "model.layers.3.mlp");
  EXPECT_EQ(plan.modules(0).rule(), "r.yaml:3:3");
  EXPECT_EQ(plan.modules(0).bytes(), 77u);
  EXPECT_EQ(plan.route(0).ops(0).layer(), 3);
  EXPECT_EQ(plan.step_shape().max_rows(), 12);
}

TEST_F(GrpcServicesTest, AdminExplainsPlacement) {
  auto admin = v1::AdminService::NewStub(channel_);
  v1::ExplainPlacementRequest request;
  v1::ExplainPlacementResponse response;
  grpc::ClientContext context;
  EXPECT_EQ(admin->ExplainPlacement(&context, request, &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  PlacedModule module;
  module.op = {OpKind::kMlp, 3};
  module.module = "model.layers.3.mlp";
  module.device = "cpu:1";
  module.rule = RuleRef{.file = "r.yaml", .line = 3, .col = 3};
  Plan made;
  made.modules.push_back(module);
  plan_ = made;
  request.set_module("model.layers.3");
  grpc::ClientContext context2;
  ASSERT_TRUE(admin->ExplainPlacement(&context2, request, &response).ok());
  ASSERT_EQ(response.modules_size(), 1);
  EXPECT_EQ(response.modules(0).rule(), "r.yaml:3:3");
  request.set_module("model.layers.7");
  grpc::ClientContext context3;
  EXPECT_EQ(admin->ExplainPlacement(&context3, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(GrpcServicesTest, AdminListsSequences) {
  workers_->Hold();
  auto admin = v1::AdminService::NewStub(channel_);
  grpc::ClientContext generating;
  auto reader = stub_->Generate(&generating, IdsRequest({5, 6, 7}, 20));
  ASSERT_TRUE(WaitFor([this] { return engine_->stats().running == 1; }));
  v1::ListSequencesResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(admin->ListSequences(&context, v1::ListSequencesRequest(), &response).ok());
  ASSERT_EQ(response.sequences_size(), 1);
  EXPECT_TRUE(response.sequences(0).running());
  EXPECT_EQ(response.sequences(0).prompt_tokens(), 3u);
  EXPECT_EQ(response.sequences(0).kv_blocks(), 1u);
  generating.TryCancel();
  workers_->Release(1000);
  reader->Finish();
  EXPECT_TRUE(EngineIsFree());
}

// Every method but those of health and reflection.
TEST_F(GrpcServicesTest, CallsNeedAKey) {
  keys_ = ApiKeys(std::map<std::string, std::string>{{"alice", "sk-alice-1234"}});
  auto admin = v1::AdminService::NewStub(channel_);
  const auto code_with = [&](const char* authorization) {
    grpc::ClientContext context;
    if (authorization != nullptr) context.AddMetadata("authorization", authorization);
    v1::GetStatusResponse response;
    return admin->GetStatus(&context, v1::GetStatusRequest(), &response).error_code();
  };
  EXPECT_EQ(code_with(nullptr), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(code_with("Bearer sk-alice-123"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(code_with("sk-alice-1234"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(code_with("Bearer sk-alice-1234"), grpc::StatusCode::OK);
  const auto refuses = [](const grpc::Status& status) {
    return status.error_code() == grpc::StatusCode::UNAUTHENTICATED;
  };
  const auto with = [] { return std::make_unique<grpc::ClientContext>(); };
  v1::GetPlanResponse plan;
  v1::ExplainPlacementResponse explanation;
  v1::ListSequencesResponse sequences;
  v1::DrainResponse drained;
  v1::SetLogLevelResponse level;
  v1::TokenizeResponse tokens;
  v1::DetokenizeResponse text;
  v1::ListModelsResponse models;
  EXPECT_TRUE(refuses(admin->GetPlan(with().get(), {}, &plan)));
  EXPECT_TRUE(refuses(admin->ExplainPlacement(with().get(), {}, &explanation)));
  EXPECT_TRUE(refuses(admin->ListSequences(with().get(), {}, &sequences)));
  EXPECT_TRUE(refuses(admin->Drain(with().get(), {}, &drained)));
  EXPECT_TRUE(refuses(admin->SetLogLevel(with().get(), {}, &level)));
  EXPECT_TRUE(refuses(stub_->Tokenize(with().get(), {}, &tokens)));
  EXPECT_TRUE(refuses(stub_->Detokenize(with().get(), {}, &text)));
  EXPECT_TRUE(refuses(stub_->ListModels(with().get(), {}, &models)));
  std::vector<v1::GenerateResponse> responses;
  EXPECT_TRUE(refuses(Generate(IdsRequest({1}, 1), &responses)));
}

// As grpcurl asks: v1 first, and describe shows the comments.
TEST_F(GrpcServicesTest, ReflectionHasTheComments) {
  namespace reflection = ::grpc::reflection::v1;
  auto stub = reflection::ServerReflection::NewStub(channel_);
  grpc::ClientContext context;
  auto stream = stub->ServerReflectionInfo(&context);
  reflection::ServerReflectionRequest request;
  reflection::ServerReflectionResponse response;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  std::vector<std::string> names;
  for (const auto& service : response.list_services_response().service()) {
    names.push_back(service.name());
  }
  EXPECT_THAT(names,
              ::testing::ElementsAre("dovetail.v1.AdminService", "dovetail.v1.InferenceService",
                                     "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                                     "grpc.reflection.v1alpha.ServerReflection"));
  request.set_file_containing_symbol("dovetail.v1.AdminService.GetStatus");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  // admin.proto, and plan.proto which it imports.
  ASSERT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 2);
  google::protobuf::FileDescriptorProto file;
  ASSERT_TRUE(file.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
  EXPECT_EQ(file.name(), "dovetail/v1/admin.proto");
  bool found = false;
  for (const auto& location : file.source_code_info().location()) {
    found |= location.leading_comments().find("A snapshot of coordinator") != std::string::npos;
  }
  EXPECT_TRUE(found);
  request.set_file_containing_symbol("no.such.Symbol");
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  EXPECT_EQ(response.error_response().error_code(), grpc::StatusCode::NOT_FOUND);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(GrpcServicesTest, SetLogLevelNamesTheLevels) {
  auto admin = v1::AdminService::NewStub(channel_);
  v1::SetLogLevelRequest request;
  v1::SetLogLevelResponse response;
  request.set_level("loud");
  grpc::ClientContext context;
  const grpc::Status refused = admin->SetLogLevel(&context, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), ::testing::HasSubstr("debug, info, warn"));
  request.set_level("warn");
  grpc::ClientContext context2;
  EXPECT_TRUE(admin->SetLogLevel(&context2, request, &response).ok());
}

TEST_F(GrpcServicesTest, DrainAnswersBeforeTheExit) {
  auto admin = v1::AdminService::NewStub(channel_);
  v1::DrainRequest request;
  request.set_timeout_ms(1500);
  v1::DrainResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(admin->Drain(&context, request, &response).ok());
  EXPECT_EQ(response.unfinished_sequences(), 3u);
  EXPECT_EQ(drain_timeout_, absl::Milliseconds(1500));
  EXPECT_FALSE(exit_requested_.HasBeenNotified());
  request.set_exit(true);
  grpc::ClientContext context2;
  ASSERT_TRUE(admin->Drain(&context2, request, &response).ok());
  EXPECT_TRUE(exit_requested_.WaitForNotificationWithTimeout(kPatience));
}

TEST_F(GrpcServicesTest, APortInUseIsNamed) {
  EXPECT_THAT(GrpcServer::Start({.port = server_->port()}, {}),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       absl::StrCat("port ", server_->port(), " on 127.0.0.1 is in use")));
  EXPECT_THAT(GrpcServer::Start({.listen = "192.0.2.77"}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "`192.0.2.77` is not an address of this machine"));
}

}  // namespace
}  // namespace dovetail::coordinator
