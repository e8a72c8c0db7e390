#include "coordinator/http/ollama_encoder.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;

GenerationEvent Text(const char* text, bool finished = false) {
  GenerationEvent event;
  event.text = text;
  event.finished = finished;
  event.reason = FinishReason::kLength;
  return event;
}

AnswerTotals Totals() {
  AnswerTotals totals;
  totals.usage = {.prompt_tokens = 9, .completion_tokens = 4};
  totals.taken = absl::Milliseconds(30);
  totals.first_answer = absl::Milliseconds(10);
  return totals;
}

// The line without its time.
json Parsed(const std::string& line) {
  EXPECT_TRUE(line.ends_with("}\n")) << line;
  json parsed = json::parse(line);
  EXPECT_EQ(parsed.at("created_at").get<std::string>().size(),
            std::string("2023-08-04T19:22:45.499127Z").size());
  parsed.erase("created_at");
  return parsed;
}

TEST(OllamaEncoderTest, LinesOfAChat) {
  OllamaEncoder encoder(OllamaEndpoint::kChat, "m");
  EXPECT_EQ(encoder.Begin(1, {}), "");
  EXPECT_EQ(Parsed(encoder.Event(0, Text("a"))),
            json::parse(R"({"model": "m", "message": {"role": "assistant", "content": "a"},
                            "done": false})"));
  EXPECT_EQ(encoder.Event(0, Text("", true)), "");
  EXPECT_EQ(Parsed(encoder.End(Totals())),
            json::parse(R"({"model": "m", "message": {"role": "assistant", "content": ""},
                            "done": true, "done_reason": "length", "total_duration": 30000000,
                            "load_duration": 0, "prompt_eval_count": 9,
                            "prompt_eval_duration": 10000000, "eval_count": 4,
                            "eval_duration": 20000000})"));
  EXPECT_EQ(encoder.KeepAlive(), "");
}

TEST(OllamaEncoderTest, WholeGenerateAndLoad) {
  OllamaEncoder encoder(OllamaEndpoint::kGenerate, "m");
  CompletedChoice choice;
  choice.answer.text = "hello";
  const json body = json::parse(encoder.Whole({choice}, Totals()).body);
  EXPECT_EQ(body.at("response"), "hello");
  EXPECT_EQ(body.at("done_reason"), "stop");
  EXPECT_EQ(json::parse(encoder.Loaded(false).body).at("done_reason"), "load");
  EXPECT_EQ(encoder.Loaded(true).headers[0].second, "application/x-ndjson");
}

TEST(OllamaEncoderTest, CallsComeWholeWithTheLastLine) {
  OllamaEncoder encoder(OllamaEndpoint::kChat, "m");
  GenerationEvent event;
  event.reasoning = "hm";
  event.tool_calls.push_back({.index = 0, .id = "id1", .name = "f", .arguments = "{\"x\""});
  EXPECT_EQ(Parsed(encoder.Event(0, event)).at("message"),
            json::parse(R"({"role": "assistant", "content": "", "thinking": "hm"})"));
  GenerationEvent more;
  more.tool_calls.push_back({.index = 0, .arguments = ":1}"});
  EXPECT_EQ(encoder.Event(0, more), "");
  EXPECT_EQ(Parsed(encoder.End(Totals())).at("message").at("tool_calls"),
            json::parse(R"([{"function": {"name": "f", "arguments": {"x": 1}}}])"));
}

TEST(OllamaEncoderTest, ErrorsAreOneObject) {
  OllamaEncoder encoder(OllamaEndpoint::kChat, "m");
  ApiError error;
  error.status = 503;
  error.message = "lost";
  EXPECT_EQ(OllamaError(error).status, 503);
  EXPECT_EQ(OllamaError(error).body, R"({"error":"lost"})");
  EXPECT_EQ(encoder.Error(error), "{\"error\":\"lost\"}\n");
}

}  // namespace
}  // namespace dovetail::coordinator
