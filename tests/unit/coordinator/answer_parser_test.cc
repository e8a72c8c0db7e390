#include "coordinator/chat/answer_parser.h"

#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

// An answer as one line: thoughts in <>, text as it is, calls as [name(arguments)#id].
std::string Show(const AnswerDelta& answer) {
  std::string shown;
  if (!answer.reasoning.empty()) absl::StrAppend(&shown, "<", answer.reasoning, ">");
  absl::StrAppend(&shown, answer.text);
  for (const ToolCallDelta& call : answer.tool_calls) {
    absl::StrAppend(&shown, "[", call.name, "(", call.arguments, ")#", call.id, "]");
  }
  return shown;
}

ParserOptions Options(absl::string_view dialect, bool thinks = false) {
  ParserOptions options;
  if (!dialect.empty()) options.dialect = FindDialect(dialect);
  options.thinks = thinks;
  options.string_arguments["f"] = {{"text", true}, {"n", false}, {"any", false}};
  options.string_arguments["g"] = {};
  return options;
}

// The whole in pieces that end where `cut` says.
std::string Parse(const ParserOptions& options, absl::string_view text,
                  const std::vector<size_t>& cuts) {
  AnswerParser parser(options);
  AnswerDelta answer;
  size_t begin = 0;
  for (size_t cut : cuts) {
    answer.Add(parser.Push(text.substr(begin, cut - begin)));
    begin = cut;
  }
  answer.Add(parser.Push(text.substr(begin)));
  answer.Add(parser.Finish());
  return Show(answer);
}

// However the text is cut, the same comes out.
void ExpectParsed(const ParserOptions& options, absl::string_view text,
                  const std::string& expected) {
  ASSERT_EQ(Parse(options, text, {}), expected) << text;
  std::vector<size_t> everywhere;
  for (size_t i = 1; i < text.size(); ++i) everywhere.push_back(i);
  ASSERT_EQ(Parse(options, text, everywhere), expected) << "byte by byte: " << text;
  for (size_t i = 1; i < text.size(); ++i) {
    ASSERT_EQ(Parse(options, text, {i}), expected) << "cut at " << i << ": " << text;
  }
  std::mt19937_64 random(testing::TestSeed());
  for (int round = 0; round < 50; ++round) {
    std::vector<size_t> cuts;
    for (size_t i = 1; i < text.size(); ++i) {
      if (random() % 5 == 0) cuts.push_back(i);
    }
    ASSERT_EQ(Parse(options, text, cuts), expected) << text;
  }
}

TEST(AnswerParser, WithoutThoughtsAndToolsTextIsText) {
  ExpectParsed(Options(""), " a <think> {\"name\"} <tool_call> \n",
               " a <think> {\"name\"} <tool_call> \n");
}

TEST(AnswerParser, ThoughtsComeFirst) {
  ExpectParsed(Options("", true), "<think>\nhm, 1 < 2\n</think>\n\nYes.\n", "<hm, 1 < 2>Yes.\n");
  ExpectParsed(Options("", true), "\n<think></think>Yes", "Yes");
  ExpectParsed(Options("", true), "Yes <think>no</think>", "Yes <think>no</think>");
  ExpectParsed(Options("", true), "<thin ice", "<thin ice");
  ExpectParsed(Options("", true), "<think>never ends</thi", "<never ends</thi>");
  ParserOptions open = Options("", true);
  open.starts_in_thought = true;
  ExpectParsed(open, "hm</think>Yes", "<hm>Yes");
}

TEST(AnswerParser, Hermes) {
  const ParserOptions options = Options("hermes", true);
  ExpectParsed(options,
               "<think>t</think>\nLet me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": "
               "{\"a\": \"}<\\\"\", \"b\": {\"c\": [1]}}}\n</tool_call>",
               "<t>Let me see.[f({\"a\": \"}<\\\"\", \"b\": {\"c\": [1]}})#call_0]");
  ExpectParsed(options,
               "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n"
               "<tool_call>{\"name\":\"g\",\"arguments\":{\"n\":1}}</tool_call>\n",
               "[f({})#call_0][g({\"n\":1})#call_1]");
  // Another order, and arguments as a string.
  ExpectParsed(options, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>",
               "[f({\"a\":1})#call_0]");
  ExpectParsed(options,
               "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
               "[f({\"a\": 1})#call_0]");
  ExpectParsed(options, "<tool_call>{\"name\": \"f\"}</tool_call>", "[f({})#call_0]");
  // No call at all.
  ExpectParsed(options, "a <tool_call>soon</tool_call> b", "a<tool_call>soon</tool_call> b");
  ExpectParsed(options, "1 <tool", "1 <tool");
  ExpectParsed(options, "<tool_call>{\"name\": \"f\", \"argum",
               "<tool_call>{\"name\": \"f\", \"argum");
}

TEST(AnswerParser, ArgumentsAreCutOffWithTheAnswer) {
  ExpectParsed(Options("hermes"), "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x",
               "[f({\"a\": \"x)#call_0]");
}

TEST(AnswerParser, DeepSeek) {
  ExpectParsed(Options("deepseek_v3", true),
               "ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
               "{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n"
               "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
               "ok[f({\"a\": 1})#call_0][g({})#call_1]");
  ExpectParsed(Options("deepseek_v31"),
               "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}"
               "<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
               "<｜tool▁calls▁end｜>",
               "[f({\"a\": 1})#call_0][g({})#call_1]");
}

TEST(AnswerParser, KimiKeepsItsOwnIds) {
  ExpectParsed(Options("kimi_k2"),
               "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
               "<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_call_begin|>"
               "functions.g:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
               "<|tool_calls_section_end|>",
               "[f({\"a\": 1})#functions.f:0][g({})#functions.g:1]");
}

TEST(AnswerParser, XmlArgumentsBecomeJson) {
  const std::string expected =
      "Sure.[f({\"text\": \"12\", \"n\": 3, \"any\": [1,2]})#call_0][g({})#call_1]";
  ExpectParsed(Options("glm45"),
               "Sure.\n<tool_call>f\n<arg_key>text</arg_key>\n<arg_value>12</arg_value>\n"
               "<arg_key>n</arg_key>\n<arg_value>3</arg_value>\n<arg_key>any</arg_key>\n"
               "<arg_value>[1, 2]</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
               expected);
  ExpectParsed(Options("qwen3_coder"),
               "Sure.\n<tool_call>\n<function=f>\n<parameter=text>\n12\n</parameter>\n"
               "<parameter=n>\n3\n</parameter>\n<parameter=any>\n[1, 2]\n</parameter>\n"
               "</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
               expected);
  ExpectParsed(Options("minimax_m2"),
               "Sure.\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"text\">12"
               "</parameter>\n<parameter name=\"n\">3</parameter>\n<parameter name=\"any\">[1, 2]"
               "</parameter>\n</invoke>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
               expected);
  // A tool that the request does not know, and a value that is no JSON.
  ExpectParsed(Options("minimax_m2"),
               "<minimax:tool_call><invoke name=\"h\"><parameter name=\"x\">a \"b\"</parameter>"
               "</invoke></minimax:tool_call>",
               "[h({\"x\": \"a \\\"b\\\"\"})#call_0]");
}

TEST(AnswerParser, BareObjectsAreCallsOfKnownTools) {
  const ParserOptions options = Options("llama3_json");
  ExpectParsed(options, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "[f({\"a\": 1})#call_0]");
  ExpectParsed(options, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "[f({})#call_0]");
  ExpectParsed(options, "{\"name\": \"Bob\", \"age\": 3}", "{\"name\": \"Bob\", \"age\": 3}");
  ExpectParsed(options, "{\"name\": \"Bob\", \"parameters\": {}}",
               "{\"name\": \"Bob\", \"parameters\": {}}");
  ExpectParsed(options, "Use {\"name\": \"f\", \"parameters\": {}}",
               "Use {\"name\": \"f\", \"parameters\": {}}");
  ExpectParsed(Options("mistral"),
               "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", "
               "\"arguments\": {}}]",
               "[f({\"a\": 1})#call_0][g({})#call_1]");
}

TEST(AnswerParser, Harmony) {
  ExpectParsed(Options("harmony"),
               "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final"
               "<|message|>Yes.<|return|>",
               "<hm>Yes.");
  ExpectParsed(Options("harmony"),
               "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
               "to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>",
               "<hm>[f({\"a\":1})#call_0]");
}

TEST(AnswerParser, HostileTextEnds) {
  std::mt19937_64 random(testing::TestSeed());
  const std::vector<std::string> pieces = {"<tool_call>",
                                           "</tool_call>",
                                           "{",
                                           "}",
                                           "\"",
                                           "\\",
                                           "\"name\"",
                                           ":",
                                           "\"f\"",
                                           ",",
                                           "\"arguments\"",
                                           "<think>",
                                           "</think>",
                                           "<function=",
                                           ">",
                                           "<parameter=",
                                           "</parameter>",
                                           "</function>",
                                           "\n",
                                           " ",
                                           "<arg_key>",
                                           "</arg_key>",
                                           "<arg_value>",
                                           "</arg_value>",
                                           "x",
                                           "[TOOL_CALLS]",
                                           "<｜tool▁calls▁begin｜>",
                                           "<｜tool▁call▁begin｜>",
                                           "<｜tool▁sep｜>"};
  for (const char* dialect : {"hermes", "qwen3_coder", "glm45", "llama3_json", "mistral",
                              "deepseek_v31", "minimax_m2", "harmony"}) {
    for (int round = 0; round < 200; ++round) {
      std::string text;
      for (uint64_t n = random() % 30; n > 0; --n) text += pieces[random() % pieces.size()];
      const ParserOptions options = Options(dialect, true);
      const std::string whole = Parse(options, text, {});
      std::vector<size_t> cuts;
      for (size_t i = 1; i < text.size(); ++i) {
        if (random() % 3 == 0) cuts.push_back(i);
      }
      ASSERT_EQ(Parse(options, text, cuts), whole) << dialect << ": " << text;
    }
  }
}

}  // namespace
}  // namespace dovetail::coordinator
