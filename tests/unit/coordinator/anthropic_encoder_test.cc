#include "coordinator/http/anthropic_encoder.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;

AnthropicEncoder Encoder() { return AnthropicEncoder({"msg_1", "req_1", "m"}); }

GenerationEvent Text(const char* text, bool finished = false) {
  GenerationEvent event;
  event.text = text;
  event.finished = finished;
  event.reason = FinishReason::kLength;
  return event;
}

AnswerTotals Totals() {
  AnswerTotals totals;
  totals.usage = {.prompt_tokens = 9, .completion_tokens = 4, .cached_tokens = 5};
  return totals;
}

TEST(AnthropicEncoderTest, TheBytesOfAStream) {
  AnthropicEncoder encoder = Encoder();
  EXPECT_EQ(encoder.Begin(1, {.prompt_tokens = 9}),
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\","
            "\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],"
            "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":9,"
            "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,"
            "\"output_tokens\":0}}}\n\n");
  EXPECT_EQ(encoder.Event(0, Text("")), "");
  EXPECT_EQ(encoder.Event(0, Text("a")),
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
            "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
            "\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n");
  EXPECT_EQ(encoder.KeepAlive(), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
  EXPECT_EQ(encoder.Event(0, Text("", true)),
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
  EXPECT_EQ(encoder.End(Totals()),
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
            "\"max_tokens\",\"stop_sequence\":null},\"usage\":{\"input_tokens\":4,"
            "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":5,"
            "\"output_tokens\":4}}\n\n"
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

TEST(AnthropicEncoderTest, AStopSequenceIsNamed) {
  AnthropicEncoder encoder = Encoder();
  GenerationEvent event = Text("", true);
  event.reason = FinishReason::kStop;
  event.stop = "END";
  encoder.Event(0, event);
  EXPECT_NE(encoder.End(Totals()).find(
                R"("delta":{"stop_reason":"stop_sequence","stop_sequence":"END"})"),
            std::string::npos);
  CompletedChoice choice;
  choice.stop = "END";
  const json whole = json::parse(Encoder().Whole({choice}, Totals()).body);
  EXPECT_EQ(whole.at("stop_reason"), "stop_sequence");
  EXPECT_EQ(whole.at("stop_sequence"), "END");
  // A call of a tool is the reason, whatever came after it.
  choice.reason = FinishReason::kToolCalls;
  const json calls = json::parse(Encoder().Whole({choice}, Totals()).body);
  EXPECT_EQ(calls.at("stop_reason"), "tool_use");
  EXPECT_TRUE(calls.at("stop_sequence").is_null());
}

TEST(AnthropicEncoderTest, AnEmptyAnswerHasNoBlocks) {
  AnthropicEncoder encoder = Encoder();
  EXPECT_EQ(encoder.Event(0, Text("", true)), "");
  const HttpResponse whole = Encoder().Whole({{}}, Totals());
  EXPECT_EQ(json::parse(whole.body).at("content"), json::array());
}

TEST(AnthropicEncoderTest, Whole) {
  CompletedChoice choice;
  choice.answer.text = "hello";
  const HttpResponse response = Encoder().Whole({choice}, Totals());
  const json body = json::parse(response.body);
  EXPECT_EQ(body.at("content"), json::parse(R"([{"type": "text", "text": "hello"}])"));
  EXPECT_EQ(body.at("stop_reason"), "end_turn");
  EXPECT_EQ(body.at("usage").at("output_tokens"), 4);
  EXPECT_EQ(response.headers.back(), (std::pair<std::string, std::string>("request-id", "req_1")));
}

TEST(AnthropicEncoderTest, ThinkingTextAndToolsAreBlocks) {
  AnthropicEncoder encoder = Encoder();
  GenerationEvent thinks;
  thinks.reasoning = "hm";
  const std::string first = encoder.Event(0, thinks);
  EXPECT_NE(first.find("\"thinking_delta\",\"thinking\":\"hm\""), std::string::npos) << first;
  GenerationEvent calls;
  calls.text = "so";
  calls.tool_calls.push_back({.index = 0, .id = "id1", .name = "f"});
  calls.tool_calls.push_back({.index = 0, .arguments = "{\"x\":1}"});
  calls.tool_calls.push_back({.index = 1, .id = "id2", .name = "g"});
  calls.finished = true;
  calls.reason = FinishReason::kToolCalls;
  const std::string rest = encoder.Event(0, calls);
  std::vector<std::string> seen;
  size_t at = 0;
  while ((at = rest.find("data: ", at)) != std::string::npos) {
    const json data = json::parse(rest.substr(at + 6, rest.find('\n', at) - at - 6));
    seen.push_back(data.at("type").get<std::string>() + " " +
                   std::to_string(data.at("index").get<int>()));
    ++at;
  }
  EXPECT_EQ(seen, (std::vector<std::string>{
                      "content_block_stop 0", "content_block_start 1", "content_block_delta 1",
                      "content_block_stop 1", "content_block_start 2", "content_block_delta 2",
                      "content_block_stop 2", "content_block_start 3", "content_block_stop 3"}));
  EXPECT_NE(encoder.End(Totals()).find("\"stop_reason\":\"tool_use\""), std::string::npos);

  CompletedChoice choice;
  choice.answer.Add(thinks);
  choice.answer.tool_calls.push_back({.id = "id1", .name = "f", .arguments = "{\"x\":1}"});
  choice.answer.tool_calls.push_back({.id = "id2", .name = "g", .arguments = "{\"cut"});
  choice.reason = FinishReason::kToolCalls;
  EXPECT_EQ(json::parse(Encoder().Whole({choice}, Totals()).body).at("content"),
            json::parse(R"([{"type": "thinking", "thinking": "hm", "signature": ""},
                            {"type": "tool_use", "id": "id1", "name": "f", "input": {"x": 1}},
                            {"type": "tool_use", "id": "id2", "name": "g", "input": {}}])"));
}

TEST(AnthropicEncoderTest, ErrorTypesFollowTheStatus) {
  for (const auto& [status, type] : {std::pair(400, "invalid_request_error"),
                                     {401, "authentication_error"},
                                     {404, "not_found_error"},
                                     {413, "request_too_large"},
                                     {429, "rate_limit_error"},
                                     {500, "api_error"},
                                     {503, "overloaded_error"}}) {
    ApiError error;
    error.status = status;
    error.message = "no";
    error.retry_after_seconds = status == 429 ? 7 : 0;
    const HttpResponse response = AnthropicError(error);
    EXPECT_EQ(response.status, status);
    const json expected = {{"type", "error"}, {"error", {{"type", type}, {"message", "no"}}}};
    EXPECT_EQ(json::parse(response.body), expected);
    const std::string event = Encoder().Error(error);
    EXPECT_EQ(event, "event: error\ndata: " + response.body + "\n\n");
  }
}

}  // namespace
}  // namespace dovetail::coordinator
