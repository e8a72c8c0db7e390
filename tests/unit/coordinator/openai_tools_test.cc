#include "coordinator/http/openai_tools.h"

#include "coordinator/http/openai_request.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;

constexpr OpenAiEndpoint kChat = OpenAiEndpoint::kChat;
#define MESSAGES R"("messages":[{"role":"user","content":"hi"}])"
#define TOOL(name) R"({"type":"function","function":{"name":")" name R"("}})"

GenerationRequest Parse(const std::string& fields) {
  OpenAiRequest request;
  const auto error = ParseOpenAiRequest(kChat, "{" MESSAGES "," + fields + "}", &request);
  EXPECT_FALSE(error.has_value()) << fields << ": " << error->message;
  return error.has_value() ? GenerationRequest() : request.generations.at(0);
}

ApiError Refusal(const std::string& fields) {
  OpenAiRequest request;
  const auto error = ParseOpenAiRequest(kChat, "{" MESSAGES "," + fields + "}", &request);
  EXPECT_TRUE(error.has_value()) << fields;
  return error.value_or(ApiError{.status = 0});
}

TEST(OpenAiToolsTest, ReadsToolsInTheirOrder) {
  const GenerationRequest request = Parse(
      R"("tools":[{"type":"function","function":{"name":"f","description":"d","strict":true,)"
      R"("parameters":{"type":"object","properties":{"z":{},"a":{}}}}}],"parallel_tool_calls":false)");
  EXPECT_EQ(request.chat.tools.dump(),
            R"([{"type":"function","function":{"name":"f","description":"d","strict":true,)"
            R"("parameters":{"type":"object","properties":{"z":{},"a":{}}}}}])");
  EXPECT_EQ(request.chat.tool_choice, ChatOptions::ToolChoice::kAuto);
  EXPECT_FALSE(request.chat.parallel_tool_calls);
  EXPECT_TRUE(Parse(R"("tools":[])").chat.tools.is_null());
}

TEST(OpenAiToolsTest, ReadsToolChoice) {
  const std::string tools = R"("tools":[)" TOOL("f") "," TOOL("g") "],";
  using Choice = ChatOptions::ToolChoice;
  EXPECT_EQ(Parse(tools + R"("tool_choice":"none")").chat.tool_choice, Choice::kNone);
  EXPECT_EQ(Parse(tools + R"("tool_choice":"required")").chat.tool_choice, Choice::kRequired);
  const ChatOptions named = Parse(tools + R"("tool_choice":)" TOOL("g")).chat;
  EXPECT_EQ(named.tool_choice, Choice::kRequired);
  EXPECT_THAT(named.allowed_tools, ElementsAre("g"));
  EXPECT_FALSE(named.parallel_tool_calls);
  const ChatOptions allowed =
      Parse(tools + R"("tool_choice":{"type":"allowed_tools","allowed_tools":)"
                    R"({"mode":"required","tools":[)" TOOL("f") "]}}")
          .chat;
  EXPECT_EQ(allowed.tool_choice, Choice::kRequired);
  EXPECT_THAT(allowed.allowed_tools, ElementsAre("f"));
}

TEST(OpenAiToolsTest, NamesTheBadTool) {
  const struct {
    const char* fields;
    const char* param;
    const char* message;
  } kCases[] = {
      {R"("tools":{})", "tools", "`tools` must be an array, not an object"},
      {R"("tools":[5])", "tools[0]", "`tools[0]` must be an object, not a number"},
      {R"("tools":[{}])", "tools[0].type", "`tools[0].type` is required"},
      {R"("tools":[{"type":"web_search"}])", "tools[0].type",
       "`tools[0].type`: tools of type \"web_search\" are not supported; use function"},
      {R"("tools":[{"type":"function"}])", "tools[0].function", "`tools[0].function` is required"},
      {R"("tools":[{"type":"function","function":{}}])", "tools[0].function.name",
       "`tools[0].function.name` is required"},
      {R"("tools":[)" TOOL("a b") "]", "tools[0].function.name",
       "`tools[0].function.name` must have 1 to 64 letters, digits, dots, underscores or dashes"},
      {R"("tools":[{"type":"function","function":{"name":"f","parameters":[]}}])",
       "tools[0].function.parameters",
       "`tools[0].function.parameters` must be an object, not an array"},
      {R"("tools":[)" TOOL("f") "," TOOL("f") "]", "tools", "`tools` has two functions \"f\""},
      {R"("tools":[)" TOOL("f") R"(],"tool_choice":)" TOOL("g"), "tool_choice",
       "`tool_choice` names the function \"g\", which `tools` does not have"},
      {R"("tool_choice":"required")", "tool_choice",
       "`tool_choice` asks for a call, but there are no `tools`"},
      {R"("tool_choice":"perhaps")", "tool_choice",
       "`tool_choice` is \"perhaps\"; use auto, none, required or a function"},
      {R"("tool_choice":5)", "tool_choice",
       "`tool_choice` must be a string or an object, not a number"},
      {R"("chat_template_kwargs":{"a":[1]})", "chat_template_kwargs.a",
       "`chat_template_kwargs.a` must be a string, a number or true or false, not an array"},
  };
  for (const auto& bad : kCases) {
    const ApiError error = Refusal(bad.fields);
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.param, bad.param) << bad.fields;
    EXPECT_EQ(error.message, bad.message);
  }
}

TEST(OpenAiToolsTest, ReadsFormats) {
  EXPECT_FALSE(Parse(R"("response_format":{"type":"text"})").format.has_value());
  EXPECT_EQ(Parse(R"("response_format":{"type":"json_object"})").format->kind,
            GrammarKind::kJsonObject);
  const GrammarSpec schema = *Parse(R"("response_format":{"type":"json_schema","json_schema":)"
                                    R"({"name":"n","strict":true,"schema":{"z":1,"a":2}}})")
                                  .format;
  EXPECT_EQ(schema.kind, GrammarKind::kJsonSchema);
  EXPECT_EQ(schema.source, R"({"z":1,"a":2})") << "in its order";
  EXPECT_EQ(schema.field, "response_format");
  EXPECT_EQ(Parse(R"("guided_json":{"z":1,"a":2})").format->source, R"({"z":1,"a":2})");
  EXPECT_EQ(Parse(R"("guided_json":"{\"z\": 1}")").format->source, R"({"z": 1})");
  EXPECT_EQ(Parse(R"("guided_regex":"a+")").format->kind, GrammarKind::kRegex);
  const GrammarSpec choice = *Parse(R"("guided_choice":["a","b\"c"])").format;
  EXPECT_EQ(choice.kind, GrammarKind::kEbnf);
  EXPECT_EQ(choice.source, R"(root ::= "a" | "b\"c")");
  EXPECT_EQ(Parse(R"("grammar":"root ::= \"x\"")").format->kind, GrammarKind::kEbnf);
  EXPECT_FALSE(Parse(R"("grammar":"")").format.has_value());
  EXPECT_EQ(Parse(R"("structured_outputs":{"json":{"z":1,"a":2},"regex":null})").format->source,
            R"({"z":1,"a":2})");
}

TEST(OpenAiToolsTest, NamesTheBadFormat) {
  const struct {
    const char* fields;
    const char* param;
    const char* message;
  } kCases[] = {
      {R"("response_format":"json")", "response_format",
       "`response_format` must be an object, not a string"},
      {R"("response_format":{"type":"yaml"})", "response_format",
       "`response_format` of type \"yaml\" is not supported; use text, json_object or json_schema"},
      {R"("response_format":{"type":"json_schema"})", "response_format.json_schema",
       "`response_format.json_schema` is required"},
      {R"("response_format":{"type":"json_schema","json_schema":{"name":"n"}})",
       "response_format.json_schema.schema", "`response_format.json_schema.schema` is required"},
      {R"("guided_json":5)", "guided_json", "`guided_json` must be a JSON schema, not a number"},
      {R"("guided_choice":[])", "guided_choice",
       "`guided_choice` must be an array of 1 to 1024 strings"},
      {R"("guided_regex":5)", "guided_regex", "`guided_regex` must be a string that is not empty"},
      {R"("guided_regex":"a","guided_choice":["b"])", "guided_choice",
       "`guided_choice` and another format cannot be had together"},
      {R"("structured_outputs":{"xml":"a"})", "structured_outputs.xml",
       "`structured_outputs.xml` is not supported"},
  };
  for (const auto& bad : kCases) {
    const ApiError error = Refusal(bad.fields);
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.param, bad.param) << bad.fields;
    EXPECT_EQ(error.message, bad.message);
  }
}

}  // namespace
}  // namespace dovetail::coordinator
