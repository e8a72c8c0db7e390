#include "coordinator/http/openai_encoder.h"

#include <cmath>

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

AnswerDelta Text(const std::string& text) {
  AnswerDelta delta;
  delta.text = text;
  return delta;
}

TokenDetail Detail(const std::string& bytes, float logprob) {
  TokenDetail detail;
  detail.bytes = bytes;
  detail.in_text = true;
  detail.logprob = logprob;
  detail.top = {{bytes, logprob}, {"\xe2", -HUGE_VALF}};
  return detail;
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
  EXPECT_EQ(encoder.Completion({{Text("Paris \"é\"\n"), FinishReason::kStop}}, kUsage),
            R"({"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m",)"
            R"("system_fingerprint":"dovetail-cis1-f16","choices":[{"index":0,"message":)"
            R"({"role":"assistant","content":"Paris \"é\"\n","refusal":null},"logprobs":null,)"
            R"("finish_reason":"stop"}],)" USAGE "}");
}

TEST(OpenAiEncoderTest, WholeCompletionWithSeveralChoices) {
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kCompletion));
  EXPECT_EQ(encoder.Completion(
                {{Text("a"), FinishReason::kLength}, {Text(""), FinishReason::kStop}}, kUsage),
            TEXT_HEAD R"({"index":0,"text":"a","logprobs":null,"finish_reason":"length"},)"
                      R"({"index":1,"text":"","logprobs":null,"finish_reason":"stop"}],)" USAGE
                      "}");
}

TEST(OpenAiEncoderTest, ChatEvents) {
  int offset = 0;
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kChat));
  EXPECT_EQ(encoder.RoleEvent(0),
            CHUNK_HEAD R"({"index":0,"delta":{"role":"assistant","content":""},)"
                       R"("logprobs":null,"finish_reason":null}]})"
                       "\n\n");
  EXPECT_EQ(encoder.DeltaEvent(0, Text("Hi"), &offset),
            CHUNK_HEAD R"({"index":0,"delta":{"content":"Hi"},"logprobs":null,)"
                       R"("finish_reason":null}]})"
                       "\n\n");
  EXPECT_EQ(encoder.FinishEvent(0, FinishReason::kLength),
            CHUNK_HEAD R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]})"
                       "\n\n");
}

TEST(OpenAiEncoderTest, UsageIsNullUntilItsOwnEvent) {
  int offset = 0;
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kChat, /*include_usage=*/true));
  EXPECT_EQ(encoder.DeltaEvent(0, Text("Hi"), &offset),
            CHUNK_HEAD R"({"index":0,"delta":{"content":"Hi"},"logprobs":null,)"
                       R"("finish_reason":null}],"usage":null})"
                       "\n\n");
  EXPECT_EQ(encoder.UsageEvent(kUsage), CHUNK_HEAD "]," USAGE "}\n\n");
}

TEST(OpenAiEncoderTest, CompletionEvents) {
  int offset = 0;
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kCompletion));
  EXPECT_EQ(encoder.RoleEvent(0), "");
  EXPECT_EQ(encoder.DeltaEvent(1, Text("x"), &offset),
            "data: " TEXT_HEAD R"({"index":1,"text":"x","logprobs":null,"finish_reason":null}]})"
            "\n\n");
  EXPECT_EQ(encoder.FinishEvent(1, FinishReason::kStop),
            "data: " TEXT_HEAD R"({"index":1,"text":"","logprobs":null,"finish_reason":"stop"}]})"
            "\n\n");
}

TEST(OpenAiEncoderTest, ChatLogprobsShowBytes) {
  AnswerIdentity identity = Identity(OpenAiEndpoint::kChat);
  identity.logprobs = true;
  const OpenAiEncoder encoder(identity);
  AnswerDelta delta = Text("é");
  delta.details = {Detail("é", -0.5f)};
  int offset = 0;
  EXPECT_EQ(encoder.DeltaEvent(0, delta, &offset),
            CHUNK_HEAD R"({"index":0,"delta":{"content":"é"},"logprobs":{"content":[)"
                       R"({"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[)"
                       R"({"token":"é","logprob":-0.5,"bytes":[195,169]},)"
                       "{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-9999.0,\"bytes\":[226]}]}],"
                       R"("refusal":null},"finish_reason":null}]})"
                       "\n\n");
  delta.text.clear();  // a token whose text is not complete yet
  EXPECT_NE(encoder.DeltaEvent(0, delta, &offset).find(R"("delta":{"content":""})"),
            std::string::npos);
}

TEST(OpenAiEncoderTest, CompletionLogprobsCountCharacters) {
  AnswerIdentity identity = Identity(OpenAiEndpoint::kCompletion);
  identity.logprobs = true;
  AnswerDelta answer = Text("éab");
  answer.details = {Detail("é", 0), Detail("a", -1), Detail("</s>", -2), Detail("b", -3)};
  answer.details[0].logprob.reset();
  answer.details[2].in_text = false;
  for (size_t i : {1, 2, 3}) answer.details[i].top.resize(1);
  EXPECT_EQ(OpenAiEncoder(identity).Completion({{answer, FinishReason::kStop}}, kUsage),
            TEXT_HEAD R"({"index":0,"text":"éab","logprobs":{"tokens":["é","a","</s>","b"],)"
                      R"("token_logprobs":[null,-1.0,-2.0,-3.0],)"
                      R"("top_logprobs":[null,{"a":-1.0},{"</s>":-2.0},{"b":-3.0}],)"
                      R"("text_offset":[0,1,2,2]},"finish_reason":"stop"}],)" USAGE "}");
  // Pieces of a stream go on counting.
  int offset = 0;
  const OpenAiEncoder encoder(identity);
  AnswerDelta piece = Text("éa");
  piece.details = {Detail("éa", -1)};
  EXPECT_NE(encoder.DeltaEvent(0, piece, &offset).find(R"("text_offset":[0])"), std::string::npos);
  const std::string second = encoder.DeltaEvent(0, piece, &offset);
  EXPECT_NE(second.find(R"("text_offset":[2])"), std::string::npos) << second;
  EXPECT_NE(second.find(R"({"éa":-1.0,"bytes:\\xe2":-9999.0})"), std::string::npos) << second;
}

TEST(OpenAiEncoderTest, ReasoningAndCallsOfTools) {
  const OpenAiEncoder encoder(Identity(OpenAiEndpoint::kChat));
  AnswerDelta first;
  first.reasoning = "hm";
  first.tool_calls = {{.index = 0, .id = "call_1", .name = "f", .arguments = ""}};
  AnswerDelta second;
  second.tool_calls = {{.index = 0, .arguments = "{\"a\":1}"},
                       {.index = 1, .id = "call_2", .name = "g", .arguments = "{}"}};
  int offset = 0;
  EXPECT_EQ(encoder.DeltaEvent(0, first, &offset),
            CHUNK_HEAD R"({"index":0,"delta":{"reasoning_content":"hm","tool_calls":[)"
                       R"({"index":0,"id":"call_1","type":"function",)"
                       R"("function":{"name":"f","arguments":""}}]},"logprobs":null,)"
                       R"("finish_reason":null}]})"
                       "\n\n");
  EXPECT_NE(encoder.DeltaEvent(0, second, &offset)
                .find(R"([{"index":0,"function":{"arguments":"{\"a\":1}"}},{"index":1,"id")"),
            std::string::npos);
  AnswerDelta whole;
  whole.Add(first);
  whole.Add(second);
  EXPECT_NE(encoder.Completion({{whole, FinishReason::kToolCalls}}, kUsage)
                .find(R"("message":{"role":"assistant","content":null,"refusal":null,)"
                      R"("reasoning_content":"hm","tool_calls":[{"id":"call_1","type":"function",)"
                      R"("function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"call_2",)"
                      R"("type":"function","function":{"name":"g","arguments":"{}"}}]},)"
                      R"("logprobs":null,"finish_reason":"tool_calls")"),
            std::string::npos);
}

TEST(OpenAiEncoderTest, ErrorsAreTheSameInBodyAndEvent) {
  ApiError error = InvalidField("top_p", "bad \xff byte");
  EXPECT_EQ(ErrorBody(error),
            "{\"error\":{\"message\":\"bad \xEF\xBF\xBD byte\",\"type\":\"invalid_request_error\","
            "\"param\":\"top_p\",\"code\":null}}");
  EXPECT_EQ(OpenAiEncoder::ErrorEvent(error), "data: " + ErrorBody(error) + "\n\n");
}

TEST(OpenAiEncoderTest, Models) {
  ModelEntry first;
  first.name = "m";
  first.aliases = {"not listed"};
  first.created = 7;
  first.context_length = 2048;
  ModelEntry second;
  second.name = "n";
  second.created = 8;
  EXPECT_EQ(ModelListBody(ModelDirectory({first, second})),
            R"({"object":"list","data":[{"id":"m","object":"model","created":7,)"
            R"("owned_by":"dovetail","max_model_len":2048},)"
            R"({"id":"n","object":"model","created":8,"owned_by":"dovetail"}]})");
  EXPECT_EQ(ModelBody(second), R"({"id":"n","object":"model","created":8,"owned_by":"dovetail"})");
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
