// What clients ask of the gRPC services.
#include "tests/integration/grpc_services_fixture.h"

#include <thread>

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

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
  v1::GenerateRequest urgent = IdsRequest({1}, 1);
  urgent.set_priority(-101);
  v1::GenerateRequest chat;
  chat.mutable_chat()->add_messages()->set_role("user");
  const std::vector<Case> cases = {
      {empty, grpc::StatusCode::INVALID_ARGUMENT, "`prompt`, `token_ids` and `chat`"},
      {other_model, grpc::StatusCode::NOT_FOUND, "`gpt-9` does not exist"},
      {zero, grpc::StatusCode::INVALID_ARGUMENT, "`max_tokens` must be at least 1, got 0"},
      {hot, grpc::StatusCode::INVALID_ARGUMENT, "`temperature`"},
      {urgent, grpc::StatusCode::INVALID_ARGUMENT, "`priority` must be at least -100, got -101"},
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

TEST_F(GrpcServicesTest, TheStopStringIsNamed) {
  v1::GenerateRequest request;
  request.set_prompt("x");
  request.set_max_tokens(40);
  request.set_priority(-3);
  request.mutable_format()->set_regex("ab!cd");
  request.add_stop("never");
  request.add_stop("!c");
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::string text;
  for (const v1::GenerateResponse& r : responses) text += r.text();
  EXPECT_EQ(text, "ab");
  EXPECT_EQ(responses.back().stop(), "!c");
  EXPECT_EQ(responses.back().finish_reason(), v1::FINISH_REASON_STOP);
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
  ASSERT_TRUE(WaitFor([this] { return engine_->stats().generated_tokens > 0; }));
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

}  // namespace
}  // namespace dovetail::coordinator
