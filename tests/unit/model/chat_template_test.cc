#include "model/chat_template/chat_template.h"

#include <thread>

#include "model/gguf/gguf_file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::string> Render(const std::string& source, const Json& context = Json::object(),
                                   std::time_t now = 0) {
  const auto chat_template = ChatTemplate::Parse(source);
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render(context, now);
}

void ExpectText(const std::string& source, const std::string& expected,
                const Json& context = Json::object()) {
  const auto text = Render(source, context);
  ASSERT_THAT(text, testing::IsOk()) << source;
  EXPECT_EQ(*text, expected) << source;
}

void ExpectError(const std::string& source, const std::string& message,
                 const Json& context = Json::object()) {
  EXPECT_THAT(Render(source, context), StatusIs(kInvalid, HasSubstr(message))) << source;
}

TEST(ChatTemplate, PrintsTextAndValues) {
  ExpectText("a{{ 1 + 2 }}b", "a3b");
  ExpectText("{{ m[0].content }}", "hi", {{"m", {{{"content", "hi"}}}}});
  ExpectText("", "");
}

TEST(ChatTemplate, WhiteSpaceAsHuggingFaceHasIt) {
  ExpectText("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny");  // trim and lstrip blocks
  ExpectText("a \n {%- if true -%} \n b {% endif %}", "ab ");
  ExpectText("{{ 1 }}\n{{ 2 }}\n", "1\n2");  // prints keep their newline
  ExpectText("  {%+ if true %}x{% endif +%}\ny", "  x\ny");
  ExpectText("a\r\n{# c #}\r\nb", "a\nb");
}

TEST(ChatTemplate, LoopsScopesAndNamespaces) {
  ExpectText("{% for x in [1, 2] %}{{ loop.index }}{{ loop.last }} {% endfor %}", "1False 2True ");
  ExpectText("{% set x = 1 %}{% for y in [2] %}{% set x = y %}{% endfor %}{{ x }}", "1");
  ExpectText("{% set n = namespace(x=1) %}{% for y in [2] %}{% set n.x = y %}{% endfor %}{{ n.x }}",
             "2");
}

TEST(ChatTemplate, KeepsTheOrderOfObjects) {
  ExpectText("{{ t | tojson }}", R"({"z": 1, "a": {"y": [], "b": "é\""}})",
             Json::parse(R"({"t": {"z": 1, "a": {"y": [], "b": "é\""}}})"));
}

TEST(ChatTemplate, TheClockIsGiven) {
  const auto text = Render("{{ strftime_now('%Y') }}", Json::object(), 86400 * 366);
  EXPECT_THAT(text, testing::IsOk());
  EXPECT_EQ(*text, "1971");
}

TEST(ChatTemplate, ErrorsNameLineAndColumn) {
  ExpectError("ab\n  {{ x.y }}", "chat template:2:");
  ExpectError("ab\n  {{ x.y }}", "'x' is undefined");
  ExpectError("{{ m.a.b }}", "'dict object' has no attribute 'a'", {{"m", Json::object()}});
  ExpectError("\n\n{% if x %}", "chat template:3:");
  ExpectError("\n{{ 'abc }}", "chat template:2:4: missing end of string");
  ExpectError("{% nosuch %}", "chat template:1:4: unknown or unsupported block 'nosuch'");
  ExpectError("{{ 1 | nosuch }}", "no filter named 'nosuch'");
  ExpectError("{% if true %}\n{{ raise_exception('stop here') }}{% endif %}",
              "chat template:2:19: stop here");
  EXPECT_THAT(Render("{{ 1 }}", Json::array()), StatusIs(kInvalid, HasSubstr("must be an object")));
}

TEST(ChatTemplate, ParsedOnceRenderedByManyThreads) {
  const auto chat_template = ChatTemplate::Parse(
      "{% macro f(x) %}<{{ x | upper }}>{% endmacro %}"
      "{% for m in messages %}{{ f(m.content) }}{{ loop.index }}{% endfor %}");
  ASSERT_OK(chat_template);
  std::vector<std::thread> threads;
  std::vector<std::string> texts(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const Json context = {{"messages", {{{"content", "é" + std::to_string(i)}}}}};
      for (int round = 0; round < 200; ++round) texts[i] = *(*chat_template)->Render(context);
    });
  }
  for (auto& thread : threads) thread.join();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(texts[i], "<É" + std::to_string(i) + ">1");
}

// ---- against what others rendered ----

TEST(ChatTemplateData, HuggingFaceJsCases) {
  DT_REQUIRE_DATA(path, "chat-templates/huggingface.js-e2e-53.json");
  const Json groups = Json::parse(testing::ReadFileOrDie(path));
  constexpr std::time_t kThatDay = 1'752'148'800;  // 10 July 2025, the day in the targets
  int cases = 0;
  for (const auto& [group, members] : groups.items()) {
    for (const auto& [name, one] : members.items()) {
      const auto text =
          Render(one.at("chat_template").get<std::string>(), one.at("data"), kThatDay);
      ASSERT_THAT(text, testing::IsOk()) << name;
      // Its JavaScript prints a dict as JSON; jinja2, and so we, print it as Python does.
      const bool departs = name == "MadeAgents/Hammer2.1";
      EXPECT_EQ(*text == one.at("target").get<std::string>(), !departs) << name << "\n" << *text;
      ++cases;
    }
  }
  EXPECT_EQ(cases, 53);
}

TEST(ChatTemplateData, SmolLm2AsTheReference) {
  const char* path = std::getenv("DOVETAIL_SMOLLM2");
  if (path == nullptr) GTEST_SKIP() << "DOVETAIL_SMOLLM2 does not name the model file";
  DT_REQUIRE_DATA(golden_path, "golden/smollm2-135m-instruct-q4_1/golden.json");
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const std::string source, file->GetString("tokenizer.chat_template"));
  const Json golden = Json::parse(testing::ReadFileOrDie(golden_path));
  int chats = 0;
  for (const Json& one : golden.at("cases")) {
    if (one.at("messages").is_null()) continue;
    const auto text = Render(source, {{"messages", one.at("messages")},
                                      {"add_generation_prompt", true},
                                      {"bos_token", "<|im_start|>"},
                                      {"eos_token", "<|im_end|>"}});
    ASSERT_THAT(text, testing::IsOk());
    EXPECT_EQ(*text, one.at("text").get<std::string>());
    ++chats;
  }
  EXPECT_GT(chats, 0);
}

}  // namespace
}  // namespace dovetail::model
