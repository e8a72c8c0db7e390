// Templates that are written to hurt: they must end soon, with an error, within bounds.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "model/chat_template/chat_template.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::string> Render(const std::string& source, const Json& context = Json::object(),
                                   const TemplateLimits& limits = {}) {
  const auto chat_template = ChatTemplate::Parse(source, limits);
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render(context);
}

std::string Repeat(const std::string& unit, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += unit;
  return text;
}

TEST(HostileTemplate, WorkAndMemoryAreBounded) {
  const std::string thousand_times = "{% for i in range(1000) %}";
  const std::vector<std::string> sources = {
      "{{ 'a' * 1000000000 }}",
      "{{ 'a' * 9223372036854775807 }}",
      "{{ ([1] * 1000000000) | length }}",
      "{{ range(1000000000000) | length }}",
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
      "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
      // doubling strings and lists
      absl::StrCat("{% set n = namespace(s='aaaaaaaa') %}", thousand_times,
                   "{% set n.s = n.s ~ n.s %}{% endfor %}"),
      absl::StrCat("{% set n = namespace(s='aaaaaaaa') %}", thousand_times,
                   "{% set n.s = n.s + n.s %}{% endfor %}"),
      absl::StrCat("{% set n = namespace(s=[1]) %}", thousand_times,
                   "{% set n.s = n.s + n.s %}{% endfor %}"),
      absl::StrCat("{% set n = namespace(s=['a' * 1000000]) %}", thousand_times,
                   "{% set n.s = [n.s | join('b' * 1000000)] + n.s %}{% endfor %}"),
      // values that nest, and values that contain themselves many times over
      absl::StrCat("{% set n = namespace(x=1) %}", thousand_times,
                   "{% set n.x = [n.x] %}{% endfor %}{{ n.x }}"),
      absl::StrCat("{% set n = namespace(x=1) %}", thousand_times,
                   "{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}"),
      absl::StrCat("{% set n = namespace(x=1, y=1) %}", thousand_times,
                   "{% set n.x = [n.x] %}{% set n.y = [n.y] %}{% endfor %}{{ n.x == n.y }}"),
      "{% set n = namespace(x=1, y=1) %}{% for i in range(90) %}{% set n.x = [n.x, n.x] %}"
      "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
      "{% set n = namespace(x=1) %}{% for i in range(90) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
      "{{ n.x | tojson }}",
      "{% set n = namespace(x=1) %}{% for i in range(90) %}{% set n.x = (n.x, n.x) %}{% endfor %}"
      "{{ {n.x: 1} }}",
      "{% set n = namespace(x=1) %}{% set n.x = n %}{{ n }}",
      // widths and counts
      "{{ '%99999999999d' % 1 }}",
      "{{ '%.99999999999f' % 1.5 }}",
      "{{ '{:99999999999}'.format(1) }}",
      "{{ 'a'.ljust(1000000000000) }}",
      "{{ 'a'.center(9223372036854775807) }}",
      "{{ '1'.zfill(1000000000000) }}",
      "{{ 'a' | center(1000000000000) }}",
      "{{ 'a\nb' | indent(1000000000000) }}",
      "{{ ('a\n' * 1000000) | indent('b' * 1000000) }}",
      "{{ ('a' * 1000000).replace('', 'b' * 1000000) | length }}",
      "{{ ([1] * 1000) | batch(1000000000, 'x') | list | length }}",
      "{{ {'a': 1} | tojson(indent=1000000000) }}",
      "{{ 2 ** 100000000 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ 99999999999999999999 }}",
      // many small things
      "{% for a in range(100000) %}{% for b in range(1000) %}{% set x = ['a', 'b'] %}{% endfor %}"
      "{% endfor %}",
      "{{ ('a ' * 10000000).split() | length }}",
      "{{ ('a' * 100000000) | list | length }}",
  };
  for (const std::string& source : sources) {
    const auto start = std::chrono::steady_clock::now();
    const auto text = Render(source);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_THAT(text, StatusIs(kInvalid, HasSubstr("chat template"))) << source.substr(0, 200);
    EXPECT_LT(seconds, 60) << source.substr(0, 200);
  }
}

TEST(HostileTemplate, EndsOfNumbersAreNotUndefinedBehaviour) {
  for (const char* source :
       {"{{ (-9223372036854775807 - 1) % -1 }}", "{{ 'abc'[-9223372036854775807 - 1:] }}",
        "{{ [1, 2, 3][::9223372036854775807] }}", "{{ [1, 2, 3][::-9223372036854775807 - 1] }}",
        "{{ [1][9223372036854775807] }}", "{{ 1e308 * 10 | int }}", "{{ 1e300 | int }}",
        "{{ (1e308 * 10) | int }}", "{{ 2.5 | round(400) }}", "{{ 'a'[99999999999] }}",
        "{{ 'a'.find('a', -9223372036854775807) }}",
        "{{ range(9223372036854775806, 9223372036854775807) | list }}"}) {
    EXPECT_THAT(Render(source), testing::IsOk()) << source;
  }
}

TEST(HostileTemplate, DeepSourceIsRefusedNotOverflowed) {
  const int many = 20'000;
  for (const std::string& source :
       {absl::StrCat("{{ ", Repeat("(", many)),
        absl::StrCat("{{ ", Repeat("(", many), "1", Repeat(")", many), " }}"),
        absl::StrCat("{{ ", Repeat("[", many)),
        absl::StrCat("{{ ", Repeat("{1:", many)),
        absl::StrCat("{{ ", Repeat("not ", many), "1 }}"),
        absl::StrCat("{{ ", Repeat("-", many), "1 }}"),
        absl::StrCat("{{ x", Repeat(".a", many), " }}"),
        absl::StrCat("{{ x", Repeat("[0]", many), " }}"),
        absl::StrCat("{{ x", Repeat("()", many), " }}"),
        absl::StrCat("{{ x", Repeat("|upper", many), " }}"),
        absl::StrCat("{{ x", Repeat(" is defined", many), " }}"),
        absl::StrCat("{{ 1", Repeat(" if 1 else 1", many), " }}"),
        absl::StrCat("{% set x", Repeat("|upper", many), " %}{% endset %}"),
        absl::StrCat("{% for ", Repeat("(", many)),
        absl::StrCat("{{ x[", Repeat("x[", many)),
        absl::StrCat("{{ ", Repeat("f(", many)),
        Repeat("{% if 1 %}", many),
        Repeat("{% for x in y %}", many),
        Repeat("{% macro m() %}", many),
        Repeat("{% set x %}", many),
        Repeat("{% filter upper %}", many)}) {
    EXPECT_THAT(Render(source), StatusIs(kInvalid, HasSubstr("chat template:")))
        << source.substr(0, 40);
  }
  // Long is not deep.
  for (const std::string& source :
       {absl::StrCat("{{ 1", Repeat(" + 1", many), " }}"),
        absl::StrCat("{{ 1", Repeat(" ~ 1", many), " }}"),
        absl::StrCat("{{ 1", Repeat(" and 1", many), " }}"),
        absl::StrCat("{% if 0 %}", Repeat("{% elif 0 %}", many), "{% endif %}")}) {
    EXPECT_THAT(Render(source), testing::IsOk()) << source.substr(0, 40);
  }
}

TEST(HostileTemplate, LimitsAreTheCallers) {
  TemplateLimits limits;
  limits.max_source_bytes = 10;
  EXPECT_THAT(Render("{{ 12345678 }}", Json::object(), limits),
              StatusIs(kInvalid, HasSubstr("at most 10 are read")));
  limits = {};
  limits.max_output_bytes = 10;
  EXPECT_THAT(Render("{{ '12345678901' }}", Json::object(), limits),
              StatusIs(kInvalid, HasSubstr("prints more than 10 bytes")));
  limits = {};
  limits.max_steps = 100;
  EXPECT_THAT(Render("{% for i in range(99) %}{{ i }}{% endfor %}", Json::object(), limits),
              StatusIs(kInvalid, HasSubstr("more than 100 steps")));
  limits = {};
  limits.max_memory_bytes = 100'000;
  EXPECT_THAT(Render("{{ 1 }}", {{"x", 1}}, limits), testing::IsOk());
  EXPECT_THAT(Render("{{ x }}", {{"x", std::string(200'000, 'a')}}, limits),
              StatusIs(kInvalid, HasSubstr("more than 100000 bytes of memory")));
}

TEST(HostileTemplate, DeepOrBrokenContextsAreRefused) {
  Json deep = 1;
  for (int i = 0; i < 200; ++i) deep = Json::array({deep});
  EXPECT_THAT(Render("{{ x }}", {{"x", deep}}), StatusIs(kInvalid, HasSubstr("levels of nesting")));
  EXPECT_THAT(Render("{{ x }}", {{"x", "\xFF"}}), StatusIs(kInvalid, HasSubstr("UTF-8")));
  EXPECT_THAT(Render("{{ x }}", {{"x", UINT64_MAX}}), StatusIs(kInvalid, HasSubstr("63 bits")));
  EXPECT_THAT(Render("\xFF"), StatusIs(kInvalid, HasSubstr("UTF-8")));
}

// Real templates with pieces cut, doubled and swapped: anything may come out, but it comes out.
TEST(HostileTemplate, MutatedTemplatesEnd) {
  DT_REQUIRE_DATA(one, "chat-templates/meta-llama-Llama-3.1-8B-Instruct.jinja");
  std::vector<std::string> seeds;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(one).parent_path())) {
    if (entry.path().extension() != ".jinja") continue;
    seeds.push_back(testing::ReadFileOrDie(entry.path().string()));
  }
  std::sort(seeds.begin(), seeds.end());
  std::mt19937_64 random(testing::TestSeed());
  const Json context = Json::parse(
      R"({"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": null,
          "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}}]}],
          "tools": [{"function": {"name": "f", "parameters": {"type": "object"}}}],
          "add_generation_prompt": true, "bos_token": "<s>"})");
  TemplateLimits limits;
  limits.max_steps = 200'000;
  limits.max_output_bytes = 1 << 20;
  int rendered = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string source = seeds[random() % seeds.size()];
    for (uint64_t i = 0; i < 1 + random() % 4; ++i) {
      const size_t at = random() % source.size();
      const size_t length = std::min<size_t>(1 + random() % 20, source.size() - at);
      switch (random() % 4) {
        case 0:
          source.erase(at, length);
          break;
        case 1:
          source.insert(at, source.substr(random() % source.size(), length));
          break;
        case 2:
          source[at] = static_cast<char>(random() % 128);
          break;
        default:
          source.insert(at, std::vector<std::string>{"{{", "%}", "|", "[", "None", "-", "is", "9",
                                                     "'", "**"}[random() % 10]);
      }
      if (source.empty()) source.push_back('x');
    }
    const auto text = Render(source, context, limits);
    rendered += text.ok();
    if (!text.ok()) {
      ASSERT_THAT(text, StatusIs(kInvalid, HasSubstr("chat template")));
    }
  }
  EXPECT_GT(rendered, 100);
}

}  // namespace
}  // namespace dovetail::model
