#include "coordinator/chat/chat_format.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;
using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

class ChatFormatTest : public ::testing::Test {
 protected:
  void Use(const std::string& source, const std::string& tool_parser = "auto") {
    ASSERT_OK_AND_ASSIGN(template_, model::ChatTemplate::Parse(source));
    ChatFormatOptions options;
    options.source = source;
    options.tool_parser = tool_parser;
    options.bos_text = "<s>";
    options.eos_text = "</s>";
    ASSERT_OK_AND_ASSIGN(format_, ChatFormat::Create(template_.get(), options));
  }
  PreparedChat Prepare(const std::vector<ChatMessage>& messages, const ChatOptions& options = {},
                       const std::optional<GrammarSpec>& format = {}) {
    absl::StatusOr<PreparedChat> chat = format_->Prepare(messages, options, format);
    EXPECT_OK(chat);
    return chat.ok() ? *chat : PreparedChat();
  }
  static ChatOptions WithTool() {
    ChatOptions options;
    options.tools =
        Json::parse(R"([{"type":"function","function":{"name":"f","parameters":{"type":"object",)"
                    R"("properties":{"z":{"type":"string"},"a":{"type":"integer"}}}}}])");
    return options;
  }

  std::unique_ptr<model::ChatTemplate> template_;
  std::unique_ptr<ChatFormat> format_;
};

constexpr char kPlain[] =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
constexpr char kKnowsTools[] =
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}{% for m in messages %}[{{ m.role }}]"
    "{% if m.content %} {{ m.content }}{% endif %}{% for c in m.tool_calls or [] %} <tool_call>"
    "{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %};{% endfor %}";

TEST_F(ChatFormatTest, PlainChatsHaveNoParser) {
  Use(kPlain);
  const PreparedChat chat = Prepare({{"user", "hi"}});
  EXPECT_EQ(chat.prompt, "<s>[user] hi\n");
  EXPECT_FALSE(chat.has_parser);
  EXPECT_FALSE(chat.grammar.has_value());
}

TEST_F(ChatFormatTest, TheTemplateSeesToolsCallsAndResults) {
  Use(kKnowsTools);
  ChatMessage call{"assistant", ""};
  call.tool_calls = {{"call_1", "f", R"({"z": "x", "a": 1})"}};
  ChatMessage result{"tool", "42"};
  result.tool_call_id = "call_1";
  const PreparedChat chat = Prepare({{"user", "hi"}, call, result}, WithTool());
  EXPECT_EQ(chat.prompt,
            "TOOLS [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": "
            "{\"type\": \"object\", \"properties\": {\"z\": {\"type\": \"string\"}, \"a\": "
            "{\"type\": \"integer\"}}}}}]\n[user] hi;[assistant] <tool_call>f {\"z\": \"x\", "
            "\"a\": 1};[tool] 42;");
  EXPECT_TRUE(chat.has_parser);
  EXPECT_EQ(chat.parser.dialect->name, "hermes");
  EXPECT_TRUE(chat.parser.string_arguments.at("f").at("z"));
  EXPECT_FALSE(chat.parser.string_arguments.at("f").at("a"));
  ASSERT_TRUE(chat.grammar.has_value());
  EXPECT_EQ(chat.grammar->kind, GrammarKind::kStructuralTag);
  EXPECT_THAT(chat.grammar->source, HasSubstr("triggered_tags"));
  ChatOptions none = WithTool();
  none.tool_choice = ChatOptions::ToolChoice::kNone;
  const PreparedChat quiet = Prepare({{"user", "hi"}}, none);
  EXPECT_THAT(quiet.prompt, Not(HasSubstr("TOOLS")));
  EXPECT_FALSE(quiet.grammar.has_value());
}

TEST_F(ChatFormatTest, ATemplateWithoutToolsGetsThemAsText) {
  Use(kPlain);
  ChatMessage call{"assistant", ""};
  call.tool_calls = {{"call_1", "f", "{\"a\": 1}"}};
  ChatMessage result{"tool", "42"};
  result.tool_call_id = "call_1";
  const PreparedChat chat =
      Prepare({{"system", "Be brief."}, {"user", "hi"}, call, result}, WithTool());
  EXPECT_THAT(chat.prompt, HasSubstr("<s>[system] Be brief.\n\nYou may call"));
  EXPECT_THAT(chat.prompt, HasSubstr("[assistant] <tool_call>\n{\"name\": \"f\", \"arguments\": "
                                     "{\"a\": 1}}\n</tool_call>\n[user] <tool_response>\n42\n"));
  // The history of calls stays readable where no tool is offered any more.
  EXPECT_THAT(Prepare({{"user", "hi"}, call, result}).prompt, HasSubstr("<tool_response>\n42"));
}

TEST_F(ChatFormatTest, OneFunctionMayBeDemanded) {
  Use(kKnowsTools);
  ChatOptions options = WithTool();
  options.tools.push_back(Json::parse(R"({"type":"function","function":{"name":"g"}})"));
  options.tool_choice = ChatOptions::ToolChoice::kRequired;
  options.allowed_tools = {"g"};
  const PreparedChat chat = Prepare({{"user", "hi"}}, options);
  EXPECT_THAT(chat.grammar->source, HasSubstr(R"(\"name\": \"g\")"));
  EXPECT_THAT(chat.grammar->source, Not(HasSubstr(R"(\"name\": \"f\")")));
  EXPECT_THAT(chat.prompt, HasSubstr("\"f\"")) << "the model still knows of the others";
}

TEST_F(ChatFormatTest, ThoughtsComeBeforeAFormat) {
  Use("{{ messages[0].content }}{% if enable_thinking is not false %}<think>\n{% endif %}");
  const GrammarSpec schema = {GrammarKind::kJsonSchema, R"({"type":"integer"})", "response_format"};
  const PreparedChat open = Prepare({{"user", "hi"}}, {}, schema);
  EXPECT_TRUE(open.parser.starts_in_thought);
  EXPECT_THAT(open.grammar->source, HasSubstr("</think>"));
  EXPECT_EQ(open.grammar->field, "response_format");
  ChatOptions options;
  options.template_arguments = {{"enable_thinking", false}};
  const PreparedChat closed = Prepare({{"user", "hi"}}, options, schema);
  EXPECT_FALSE(closed.parser.starts_in_thought);
  EXPECT_EQ(closed.prompt, "hi");
}

TEST_F(ChatFormatTest, RefusesWhatItCannotDo) {
  Use(kKnowsTools, "none");
  EXPECT_THAT(format_->Prepare({{"user", "hi"}}, WithTool(), {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("`tools` cannot be used")));
  ChatOptions options;
  options.template_arguments = {{"messages", 1}};
  EXPECT_THAT(format_->Prepare({{"user", "hi"}}, options, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "`chat_template_kwargs` may not set `messages`"));
  Use("{{ raise_exception('no system') }}");
  EXPECT_THAT(format_->Prepare({{"user", "hi"}}, {}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("`messages`: chat template:1:19: no system")));
  ChatFormatOptions bad;
  bad.tool_parser = "klingon";
  EXPECT_THAT(ChatFormat::Create(template_.get(), bad),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("`tool_parser`")));
}

// Templates of the families served, with a whole round of calls.
TEST_F(ChatFormatTest, RealTemplatesTakeToolsAndTheirResults) {
  const std::string folder = testing::DataPath("chat-templates");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is absent";
  for (const char* file :
       {"Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "Qwen3-Coder", "deepseek-ai-DeepSeek-V3.1",
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "moonshotai-Kimi-K2", "GLM-4.6", "MiniMax-M2",
        "meta-llama-Llama-3.1-8B-Instruct", "openai-gpt-oss-120b"}) {
    Use(testing::ReadFileOrDie(folder + "/" + file + ".jinja"));
    ChatMessage call{"assistant", ""};
    call.tool_calls = {{"call_1", "f", R"({"z": "needle", "a": 1})"}};
    ChatMessage result{"tool", "answer-42"};
    result.tool_call_id = "call_1";
    const PreparedChat chat = Prepare({{"user", "hi"}, call, result}, WithTool());
    EXPECT_THAT(chat.prompt, HasSubstr("needle")) << file;
    EXPECT_THAT(chat.prompt, HasSubstr("answer-42")) << file;
    EXPECT_TRUE(chat.grammar.has_value()) << file;
  }
}

}  // namespace
}  // namespace dovetail::coordinator
