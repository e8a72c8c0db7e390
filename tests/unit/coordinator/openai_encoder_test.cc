#include "coordinator/http/openai_encoder.h"

#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

AnswerIdentity Identity(OpenAiEndpoint endpoint, bool include_usage = false) {
  AnswerIdentity identity;
  identity.endpoint = endpoint;
  identity.id = std::string(endpoint == OpenAiEndpoint::kChat ? "chatcmpl-1" : "cmpl-1");
  identity.created = 1700000000;
  identity.model = std::string("m");
  identity.system_fingerprint = "dovetail-cis1-f16";
  identity.include_usage = include_usage;
  return identity;
}

constexpr RequestUsage kUsage = {.prompt_tokens = 5, .completion_tokens = 3, .cached_tokens = 2};

#define USAGE                                                             \
  R"("usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,)" \
  R"("prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":0}})"
#define CHUNK_HEAD                                                                     \
  R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,)" \
  R"("model":"m","system_fingerprint":"dovetail-cis1-f16","choices":[)"
#define TEXT_HEAD                                                      \
  R"({"id":"cmpl-1","object":"text_completion","created":1700000000,)" \
  R"("model":"m","system_fingerprint":"dovetail-cis1-f16","choices":[)"

TEST(OpenAiEncoderTest, WholeChat) {
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kChat));
  EXPECT_EQ(encoder.Completion({{"Paris \"é\"\n", FinishReason::kStop}}, kUsage),
            R"({"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m",)"
            R"("system_fingerprint":"dovetail-cis1-f16","choices":[{"index":0,"message":)"
            R"({"role":"assistant","content":"Paris \"é\"\n","refusal":null},"logprobs":null,)"
            R"("finish_reason":"stop"}],)" USAGE "}");
}

TEST(OpenAiEncoderTest, WholeCompletionWithSeveralChoices) {
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kCompletion));
  EXPECT_EQ(encoder.Completion({{"a", FinishReason::kLength}, {"", FinishReason::kStop}}, kUsage),
            TEXT_HEAD R"({"index":0,"text":"a","logprobs":null,"finish_reason":"length"},)"
                      R"({"index":1,"text":"","logprobs":null,"finish_reason":"stop"}],)" USAGE
                      "}");
}

TEST(OpenAiEncoderTest, ChatEvents) {
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kChat));
  EXPECT_EQ(encoder.RoleEvent(0),
            CHUNK_HEAD R"({"index":0,"delta":{"role":"assistant","content":""},)"
                       R"("logprobs":null,"finish_reason":null}]})"
                       "\n\n");
  EXPECT_EQ(encoder.TextEvent(0, "Hi"),
            CHUNK_HEAD R"({"index":0,"delta":{"content":"Hi"},"logprobs":null,)"
                       R"("finish_reason":null}]})"
                       "\n\n");
  EXPECT_EQ(encoder.FinishEvent(0, FinishReason::kLength),
            CHUNK_HEAD R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]})"
                       "\n\n");
}

TEST(OpenAiEncoderTest, UsageIsNullUntilItsOwnEvent) {
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kChat, /*include_usage=*/true));
  EXPECT_EQ(encoder.TextEvent(0, "Hi"),
            CHUNK_HEAD R"({"index":0,"delta":{"content":"Hi"},"logprobs":null,)"
                       R"("finish_reason":null}],"usage":null})"
                       "\n\n");
  EXPECT_EQ(encoder.UsageEvent(kUsage), CHUNK_HEAD "]," USAGE "}\n\n");
}

TEST(OpenAiEncoderTest, CompletionEvents) {
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kCompletion));
  EXPECT_EQ(encoder.RoleEvent(0), "");
  EXPECT_EQ(encoder.TextEvent(1, "x"),
            "data: " TEXT_HEAD R"({"index":1,"text":"x","logprobs":null,"finish_reason":null}]})"
            "\n\n");
  EXPECT_EQ(encoder.FinishEvent(1, FinishReason::kStop),
            "data: " TEXT_HEAD R"({"index":1,"text":"","logprobs":null,"finish_reason":"stop"}]})"
            "\n\n");
}

TEST(OpenAiEncoderTest, ErrorsAreTheSameInBodyAndEvent) {
  ApiError error = InvalidField("top_p", "bad \xff byte");
  EXPECT_EQ(ErrorBody(error),
            "{\"error\":{\"message\":\"bad \xEF\xBF\xBD byte\",\"type\":\"invalid_request_error\","
            "\"param\":\"top_p\",\"code\":null}}");
  EXPECT_EQ(OpenAiEncoder::ErrorEvent(error), "data: " + ErrorBody(error) + "\n\n");
}

TEST(OpenAiEncoderTest, Models) {
  EXPECT_EQ(ModelListBody("m", 7, 2048),
            R"({"object":"list","data":[{"id":"m","object":"model","created":7,)"
            R"("owned_by":"dovetail","max_model_len":2048}]})");
  EXPECT_EQ(ModelBody("m", 7, 0),
            R"({"id":"m","object":"model","created":7,"owned_by":"dovetail"})");
}

TEST(ApiErrorTest, StatusCodesBecomeHttpStatuses) {
  const struct {
    absl::Status status;
    int http;
    const char* type;
    const char* param;
    const char* code;
    int retry_after;
  } kCases[] = {
      {absl::InvalidArgumentError("`top_p` must be above 0"), 400, "invalid_request_error", "top_p",
       "", 0},
      {absl::InvalidArgumentError("`messages` is too long: this model's maximum context length "
                                  "is 8 tokens; your prompt has 9 tokens"),
       400, "invalid_request_error", "messages", "context_length_exceeded", 0},
      {absl::NotFoundError("The model `x` does not exist"), 404, "invalid_request_error", "model",
       "model_not_found", 0},
      {absl::ResourceExhaustedError("queue full"), 429, "rate_limit_error", "", "queue_full", 9},
      {absl::UnavailableError("loading"), 503, "server_error", "", "unavailable", 2},
      {absl::DeadlineExceededError("late"), 504, "timeout", "", "deadline_exceeded", 0},
      {absl::InternalError("oops"), 500, "server_error", "", "internal_error", 0},
  };
  for (const auto& c : kCases) {
    const ApiError error = ErrorFromStatus(c.status, 9);
    EXPECT_EQ(error.status, c.http) << c.status;
    EXPECT_EQ(error.type, c.type) << c.status;
    EXPECT_EQ(error.param, c.param) << c.status;
    EXPECT_EQ(error.code, c.code) << c.status;
    EXPECT_EQ(error.retry_after_seconds, c.retry_after) << c.status;
    EXPECT_EQ(error.message, c.status.message());
  }
}

}  // namespace
}  // namespace dovetail::coordinator
