#include "coordinator/http/anthropic_request.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json Translate(const json& body, std::vector<std::string>* unknown = nullptr) {
  json chat;
  std::vector<std::string> ignored;
  const MaybeError error =
      TranslateAnthropicRequest(body, &chat, unknown != nullptr ? unknown : &ignored);
  EXPECT_FALSE(error.has_value()) << error->message;
  return chat;
}

ApiError Mistake(json body) {
  json chat;
  std::vector<std::string> unknown;
  if (body.count("max_tokens") == 0) body["max_tokens"] = 5;
  const MaybeError error = TranslateAnthropicRequest(body, &chat, &unknown);
  EXPECT_TRUE(error.has_value()) << body;
  return error.value_or(ApiError());
}

TEST(AnthropicRequestTest, FieldsAndSystem) {
  std::vector<std::string> unknown;
  const json chat = Translate(json::parse(R"({
    "model": "m", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "stream": true,
    "stop_sequences": ["a", "b"], "system": [{"type": "text", "text": "one"},
    {"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "hi"}],
    "metadata": {"user_id": "u"}, "thinking": {"type": "disabled"}, "novel": 1})"),
                              &unknown);
  EXPECT_EQ(chat, json::parse(R"({
    "model": "m", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "stream": true,
    "stop": ["a", "b"], "messages": [{"role": "system", "content": "one\ntwo"},
    {"role": "user", "content": "hi"}]})"));
  EXPECT_THAT(unknown, ElementsAre("novel"));
}

TEST(AnthropicRequestTest, ToolsTheirUseAndTheirResults) {
  const json chat = Translate(json::parse(R"({
    "model": "m", "max_tokens": 7,
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
    "messages": [
      {"role": "user", "content": [{"type": "text", "text": "q"}]},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "text", "text": "calling"},
        {"type": "tool_use", "id": "id1", "name": "f", "input": {"x": 1}}]},
      {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "id1", "content": [{"type": "text", "text": "42"}]},
        {"type": "text", "text": "go on"}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "id2"}]}]})"));
  EXPECT_EQ(chat.at("tools"), json::parse(R"([{"type": "function", "function":
      {"name": "f", "description": "d", "parameters": {"type": "object"}}}])"));
  EXPECT_EQ(chat.at("tool_choice"),
            json::parse(R"({"type": "function", "function": {"name": "f"}})"));
  EXPECT_EQ(chat.at("parallel_tool_calls"), false);
  EXPECT_EQ(chat.at("messages"), json::parse(R"([
      {"role": "user", "content": [{"type": "text", "text": "q"}]},
      {"role": "assistant", "content": [{"type": "text", "text": "calling"}], "tool_calls": [
        {"id": "id1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}]},
      {"role": "tool", "tool_call_id": "id1", "content": "42"},
      {"role": "user", "content": [{"type": "text", "text": "go on"}]},
      {"role": "tool", "tool_call_id": "id2", "content": ""}])"));
}

TEST(AnthropicRequestTest, ToolChoices) {
  for (const auto& [from, to] :
       {std::pair("auto", "auto"), {"any", "required"}, {"none", "none"}}) {
    const json chat = Translate({{"model", "m"},
                                 {"max_tokens", 1},
                                 {"tool_choice", {{"type", from}}},
                                 {"messages", {{{"role", "user"}, {"content", "x"}}}}});
    EXPECT_EQ(chat.at("tool_choice"), to);
  }
}

TEST(AnthropicRequestTest, MistakesNameAnthropicsFields) {
  const json hi = json::parse(R"([{"role": "user", "content": "hi"}])");
  json chat;
  std::vector<std::string> unknown;
  EXPECT_EQ(TranslateAnthropicRequest({{"messages", hi}}, &chat, &unknown)->param, "max_tokens");
  EXPECT_EQ(Mistake(json::object()).param, "messages");
  EXPECT_EQ(Mistake({{"messages", json::array()}}).param, "messages");
  EXPECT_EQ(Mistake({{"messages", {{{"role", "system"}, {"content", "x"}}}}}).param,
            "messages[0].role");
  EXPECT_EQ(Mistake({{"messages", {{{"role", "user"}}}}}).param, "messages[0].content");
  EXPECT_THAT(
      Mistake({{"messages", {{{"role", "user"}, {"content", {{{"type", "image"}}}}}}}}).message,
      HasSubstr("`messages[0].content[0].type`: a block of type \"image\""));
  EXPECT_EQ(Mistake({{"messages", hi}, {"thinking", {{"type", "enabled"}}}}).param, "thinking");
  EXPECT_EQ(Mistake({{"messages", hi}, {"mcp_servers", {1}}}).code, "unsupported_parameter");
  EXPECT_EQ(Mistake({{"messages", hi}, {"tools", {{{"type", "web_search_1"}}}}}).param,
            "tools[0].type");
  EXPECT_EQ(Mistake({{"messages", hi}, {"tool_choice", "auto"}}).param, "tool_choice");
  EXPECT_EQ(Mistake({{"messages", hi}, {"system", 7}}).param, "system");
  ApiError error;
  error.message = "`stop` may have at most 16 strings";
  EXPECT_EQ(InAnthropicWords(error).message, "`stop_sequences` may have at most 16 strings");
}

}  // namespace
}  // namespace dovetail::coordinator
