#include "coordinator/chat/tool_grammar.h"

#include <condition_variable>
#include <memory>
#include <mutex>

#include "absl/synchronization/notification.h"
#include "coordinator/chat/answer_parser.h"
#include "coordinator/grammar/grammar_service.h"
#include "gtest/gtest.h"
#include "tests/testing/byte_tokenizer.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;
using testing::ByteTokenizer;

// Whether the grammar lets the text come and end there.
class ToolGrammarTest : public ::testing::Test {
 protected:
  bool Accepts(const std::string& tag, const std::string& text) {
    absl::StatusOr<std::shared_ptr<const Grammar>> grammar = absl::InternalError("");
    absl::Notification done;
    service_.Compile({GrammarKind::kStructuralTag, tag, "tools"}, [&](auto result) {
      grammar = std::move(result);
      done.Notify();
    });
    done.WaitForNotification();
    EXPECT_OK(grammar) << tag;
    if (!grammar.ok()) return false;
    const auto constraint = (*grammar)->Start(nullptr);
    std::vector<int32_t> tokens;
    for (char c : text) tokens.push_back(static_cast<unsigned char>(c));
    tokens.push_back(ByteTokenizer::kEnd);
    for (int32_t token : tokens) {
      EXPECT_TRUE(constraint->WaitReady(absl::Seconds(20)));
      const auto& mask = constraint->next().mask;
      if (!mask.empty() && (mask[token / 32] >> (token % 32) & 1) == 0) return false;
      constraint->Accept(token);
    }
    EXPECT_TRUE(constraint->WaitReady(absl::Seconds(20)));
    return constraint->next().finished;
  }

  ByteTokenizer tokenizer_;
  GrammarService service_{&tokenizer_, ByteTokenizer::kVocab, {}};
};

ToolGrammarOptions Options(absl::string_view dialect, bool required) {
  ToolGrammarOptions options;
  options.dialect = FindDialect(dialect);
  options.required = required;
  options.functions = {
      {"f", Json::parse(R"({"type":"object","properties":{"n":{"type":"integer"}},)"
                        R"("required":["n"],"additionalProperties":false})")},
      {"g", nullptr}};
  return options;
}

// What each dialect writes, as its parser reads it.
const struct {
  const char* dialect;
  const char* call;       // of f with n = 3
  const char* bad_value;  // n = "x"
} kCalls[] = {
    {"hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 3}}\n</tool_call>",
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": \"x\"}}\n</tool_call>"},
    {"qwen3_coder",
     "<tool_call>\n<function=f>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>",
     "<tool_call>\n<function=f>\n<parameter=n>\nx\n</parameter>\n</function>\n</tool_call>"},
    {"deepseek_v3",
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"n\": 3}\n```"
     "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```"
     "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
    {"deepseek_v31",
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"n\": 3}<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>",
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
     "<｜tool▁calls▁end｜>"},
    {"kimi_k2",
     "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
     "{\"n\": 3}<|tool_call_end|><|tool_calls_section_end|>",
     "<|tool_calls_section_begin|><|tool_call_begin|>functions.h:0<|tool_call_argument_begin|>"
     "{\"n\": 3}<|tool_call_end|><|tool_calls_section_end|>"},
    {"glm45", "<tool_call>f\n<arg_key>n</arg_key><arg_value>3</arg_value></tool_call>",
     "<tool_call>f\n<arg_key>m</arg_key><arg_value>3</arg_value></tool_call>"},
    {"minimax_m2",
     "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"n\">3</parameter>\n</invoke>\n"
     "</minimax:tool_call>",
     "<minimax:tool_call>\n<invoke name=\"h\">\n<parameter name=\"n\">3</parameter>\n</invoke>\n"
     "</minimax:tool_call>"},
    {"llama3_json", "{\"name\": \"f\", \"parameters\": {\"n\": 3}}",
     "{\"name\": \"f\", \"parameters\": {\"n\": \"x\"}}"},
    {"mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"n\": 3}}]",
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"n\": \"x\"}}]"},
    {"harmony",
     "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.f <|constrain|>json<|message|>{\"n\": 3}<|call|>",
     "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"},
};

TEST_F(ToolGrammarTest, RequiredCallsAreEnforcedAndParsed) {
  for (const auto& c : kCalls) {
    const std::string tag =
        StructuralTag(CallsFormat(Options(c.dialect, /*required=*/true)), Thoughts::kNone);
    EXPECT_TRUE(Accepts(tag, c.call)) << c.dialect << " " << tag;
    EXPECT_FALSE(Accepts(tag, c.bad_value)) << c.dialect;
    EXPECT_FALSE(Accepts(tag, "I'd rather not.")) << c.dialect;
    EXPECT_FALSE(Accepts(tag, "")) << c.dialect;
    ParserOptions parser;
    parser.dialect = FindDialect(c.dialect);
    parser.string_arguments["f"]["n"] = false;
    AnswerParser answers(parser);
    AnswerDelta answer = answers.Push(c.call);
    answer.Add(answers.Finish());
    ASSERT_EQ(answer.tool_calls.size(), 1u) << c.dialect;
    EXPECT_EQ(answer.tool_calls[0].name, "f");
    EXPECT_EQ(Json::parse(answer.tool_calls[0].arguments), Json::parse(R"({"n":3})")) << c.dialect;
  }
}

TEST_F(ToolGrammarTest, TextMayComeInsteadWhereCallsAreFree) {
  for (const auto& c : kCalls) {
    const std::string tag =
        StructuralTag(CallsFormat(Options(c.dialect, /*required=*/false)), Thoughts::kNone);
    EXPECT_TRUE(Accepts(tag, c.call)) << c.dialect << " " << tag;
    EXPECT_FALSE(Accepts(tag, c.bad_value)) << c.dialect;
    if (std::string(c.dialect) == "harmony") continue;
    EXPECT_TRUE(Accepts(tag, "No call: 1 < 2.")) << c.dialect;
  }
}

TEST_F(ToolGrammarTest, ThoughtsComeBeforeTheFormat) {
  const Json format = {{"type", "json_schema"}, {"json_schema", {{"type", "integer"}}}};
  const std::string open = StructuralTag(format, Thoughts::kOpen);
  EXPECT_TRUE(Accepts(open, "hm</think>\n\n12"));
  EXPECT_FALSE(Accepts(open, "12"));
  const std::string may = StructuralTag(format, Thoughts::kMayBegin);
  EXPECT_TRUE(Accepts(may, "<think>hm</think>12"));
  EXPECT_TRUE(Accepts(may, "12"));
  EXPECT_FALSE(Accepts(may, "<think>hm</think>x"));
}

}  // namespace
}  // namespace dovetail::coordinator
