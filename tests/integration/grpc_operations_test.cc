// What operators ask of the gRPC services: health, administration, keys, reflection.
#include "tests/integration/grpc_services_fixture.h"

#include <thread>

#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
namespace health_v1 = ::grpc::health::v1;

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
  // One of them alone, which the others do not notice.
  health_->SetServing("model/tiny", false);
  ASSERT_EQ(check("model/tiny", &response), grpc::StatusCode::OK);
  EXPECT_EQ(response.status(), health_v1::HealthCheckResponse::NOT_SERVING);
  ASSERT_EQ(check("", &response), grpc::StatusCode::OK);
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

  StatusSnapshot other;
  other.model = "other";
  other.engine.running = 5;
  status_ = CombineStatus({status_, other});
  grpc::ClientContext context1;
  status.Clear();
  ASSERT_TRUE(admin->GetStatus(&context1, v1::GetStatusRequest(), &status).ok());
  EXPECT_EQ(status.running_sequences(), 5u);
  ASSERT_EQ(status.models_size(), 2);
  EXPECT_EQ(status.models(0).epoch(), 4u);
  EXPECT_EQ(status.models(1).model(), "other");

  v1::GetPlanResponse plan;
  grpc::ClientContext context2;
  EXPECT_EQ(admin->GetPlan(&context2, v1::GetPlanRequest(), &plan).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  Plan made;
  made.modules.push_back(
      {{{OpKind::kMlp, 3}, "model.layers.3.mlp", "cpu:1", {}, "", RuleRef{"r.yaml", 3, 3, 0}}, 77});
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
  Plan made;
  made.modules.push_back(
      {{{OpKind::kMlp, 3}, "model.layers.3.mlp", "cpu:1", {}, "", RuleRef{"r.yaml", 3, 3, 0}}, 77});
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
  v1::GenerateRequest urgent = IdsRequest({5, 6, 7}, 20);
  urgent.set_priority(-3);
  urgent.set_model("small");
  auto reader = stub_->Generate(&generating, urgent);
  ASSERT_TRUE(WaitFor([this] { return engine_->stats().running == 1; }));
  v1::ListSequencesResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(admin->ListSequences(&context, v1::ListSequencesRequest(), &response).ok());
  ASSERT_EQ(response.sequences_size(), 1);
  EXPECT_TRUE(response.sequences(0).running());
  EXPECT_EQ(response.sequences(0).prompt_tokens(), 3u);
  EXPECT_EQ(response.sequences(0).kv_blocks(), 1u);
  EXPECT_EQ(response.sequences(0).priority(), -3);
  EXPECT_EQ(response.sequences(0).model(), "tiny");
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
