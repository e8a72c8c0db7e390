#include "coordinator/http/ollama_request.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kContext = 100;

json Translate(OllamaEndpoint endpoint, const char* body, OllamaTranslation* translation) {
  json openai;
  const MaybeError error =
      TranslateOllamaRequest(endpoint, json::parse(body), kContext, &openai, translation);
  EXPECT_FALSE(error.has_value()) << error->message;
  return openai;
}

ApiError Mistake(OllamaEndpoint endpoint, const char* body) {
  json openai;
  OllamaTranslation translation;
  const MaybeError error =
      TranslateOllamaRequest(endpoint, json::parse(body), kContext, &openai, &translation);
  EXPECT_TRUE(error.has_value()) << body;
  return error.value_or(ApiError());
}

TEST(OllamaRequestTest, ChatStreamsByDefaultAndOptionsHaveTheirNames) {
  OllamaTranslation translation;
  const json chat = Translate(OllamaEndpoint::kChat, R"({
      "model": "m:latest", "messages": [{"role": "user", "content": "hi"}], "keep_alive": "5m",
      "options": {"temperature": 0, "num_predict": 9, "num_ctx": 100, "repeat_penalty": 1.1,
                  "num_thread": 8, "mirostat": 0, "seed": null, "odd": 1}, "think": false})",
                              &translation);
  EXPECT_EQ(chat, json::parse(R"({"model": "m", "stream": true, "temperature": 0, "max_tokens": 9,
      "repetition_penalty": 1.1, "messages": [{"role": "user", "content": "hi"}]})"));
  EXPECT_EQ(translation.endpoint, OpenAiEndpoint::kChat);
  EXPECT_FALSE(translation.only_loads);
  EXPECT_THAT(translation.unknown_fields, ElementsAre("odd"));
}

TEST(OllamaRequestTest, ToolsAndFormats) {
  OllamaTranslation translation;
  const json chat = Translate(OllamaEndpoint::kChat, R"({
      "model": "m", "stream": false, "format": {"type": "object"},
      "tools": [{"type": "function", "function": {"name": "f"}}],
      "messages": [{"role": "assistant", "content": "",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
                   {"role": "tool", "tool_name": "f", "content": "42"}]})",
                              &translation);
  EXPECT_EQ(chat.at("stream"), false);
  EXPECT_EQ(chat.at("response_format").at("json_schema").at("schema"), json({{"type", "object"}}));
  EXPECT_EQ(chat.at("messages"), json::parse(R"([{"role": "assistant", "content": "",
      "tool_calls": [{"id": "call_0_0", "type": "function",
                      "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
      {"role": "tool", "content": "42", "tool_call_id": "call_0_0"}])"));
  const json formatted =
      Translate(OllamaEndpoint::kGenerate, R"({"model": "m", "prompt": "p", "format": "json"})",
                &translation);
  EXPECT_EQ(formatted.at("response_format"), json({{"type", "json_object"}}));
}

TEST(OllamaRequestTest, GenerateIsAChatUnlessRaw) {
  OllamaTranslation chat;
  EXPECT_EQ(
      Translate(OllamaEndpoint::kGenerate,
                R"({"model": "m", "prompt": "p", "system": "s", "context": []})", &chat)
          .at("messages"),
      json::parse(R"([{"role": "system", "content": "s"}, {"role": "user", "content": "p"}])"));
  EXPECT_EQ(chat.endpoint, OpenAiEndpoint::kChat);
  OllamaTranslation raw;
  const json completion =
      Translate(OllamaEndpoint::kGenerate, R"({"model": "m", "prompt": "p", "raw": true})", &raw);
  EXPECT_EQ(raw.endpoint, OpenAiEndpoint::kCompletion);
  EXPECT_EQ(completion.at("prompt"), "p");
  EXPECT_GT(completion.at("max_tokens"), 1000);
}

TEST(OllamaRequestTest, NothingToSayOnlyLoads) {
  OllamaTranslation generate, chat;
  Translate(OllamaEndpoint::kGenerate, R"({"model": "m"})", &generate);
  Translate(OllamaEndpoint::kChat, R"({"model": "m", "messages": []})", &chat);
  EXPECT_TRUE(generate.only_loads && chat.only_loads);
}

TEST(OllamaRequestTest, MistakesNameOllamasFields) {
  const OllamaEndpoint generate = OllamaEndpoint::kGenerate;
  EXPECT_EQ(Mistake(generate, R"({"prompt": "p"})").param, "model");
  EXPECT_EQ(Mistake(generate, R"({"model": 7})").param, "model");
  EXPECT_THAT(Mistake(generate, R"({"model": "m", "options": {"num_ctx": 101}})").message,
              HasSubstr("`num_ctx` is 101; this server's context length is 100"));
  EXPECT_EQ(Mistake(generate, R"({"model": "m", "options": {"num_predict": 0}})").param,
            "num_predict");
  for (const char* field : {"suffix", "images", "template", "think", "logprobs"}) {
    const std::string body = std::string(R"({"model": "m", ")") + field + R"(": ["x"]})";
    EXPECT_EQ(Mistake(generate, body.c_str()).param, field);
  }
  EXPECT_EQ(Mistake(generate, R"({"model": "m", "options": {"mirostat": 2}})").param, "mirostat");
  EXPECT_EQ(Mistake(generate, R"({"model": "m", "format": "xml"})").param, "format");
  EXPECT_EQ(Mistake(OllamaEndpoint::kChat, R"({"model": "m", "messages": [1]})").param,
            "messages[0]");
  ApiError error;
  error.message = "`max_tokens` must be at least 1";
  EXPECT_EQ(InOllamaWords(error).message, "`num_predict` must be at least 1");
}

}  // namespace
}  // namespace dovetail::coordinator
