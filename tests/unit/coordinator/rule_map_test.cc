// The maps that KTransformers' own injector computed, and what it does with odd files.
#include "coordinator/placement/ktransformers/rule_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/unit/coordinator/ktransformers_golden.h"

namespace dovetail::coordinator::ktransformers {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kFields[] = {"op",         "generate_device", "prefill_device", "generate_op",
                                   "prefill_op", "other_kwargs",    "rule_index",     "recursive"};

// What a golden map says of a module, in our form.
Json Expected(const Json& module) {
  Json entry = Json::object();
  for (const char* field : kFields) {
    if (module.contains(field)) entry[field] = module[field];
  }
  return entry;
}

TEST(RuleMap, EqualsEveryMapOfKTransformersOwnInjector) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  int num_maps = 0;
  for (const GoldenMap& golden : GoldenMaps()) {
    SCOPED_TRACE(golden.path);
    const auto tree = ReadModuleTree(golden.tree_text, golden.path);
    ASSERT_TRUE(tree.ok()) << tree.status();
    const auto file = ParseRuleFile(golden.rules_text, golden.rule_file);
    ASSERT_TRUE(file.ok()) << file.status();
    const RuleMap map = MapModules(*tree, *file);
    EXPECT_TRUE(map.errors.empty());
    const Json got = Json::parse(RuleMapJson(map, *file))["modules"];
    const Json& want = golden.json["modules"];
    ASSERT_EQ(got.size(), want.size());
    auto it = got.begin();
    for (const auto& [name, module] : want.items()) {
      ASSERT_EQ(it.key(), name);
      ASSERT_EQ(it.value(), Expected(module)) << name;
      ++it;
    }
    EXPECT_EQ(map.collapsed.size(), golden.json["collapsed_experts"].size());
    ++num_maps;
  }
  EXPECT_EQ(num_maps, 75);
}

// A small tree: two layers of three experts and what stands above them.
ModuleTree SmallTree() {
  const std::string text = R"({"class_mro": {
      "m.Model": ["m.Model", "m.Base", "torch.nn.modules.module.Module"],
      "m.YarnRope": ["m.YarnRope", "m.Rope", "torch.nn.modules.module.Module"],
      "torch.nn.modules.linear.Linear":
          ["torch.nn.modules.linear.Linear", "torch.nn.modules.module.Module"]},
    "collapsed_experts": {"model.layers.0.mlp.experts": 3, "model.layers.1.mlp.experts": 3},
    "modules": {"": {"class": "m.Model"}, "model": {"class": "m.Model"},
      "model.layers": {"class": "m.List"},
      "model.layers.0": {"class": "m.Layer"}, "model.layers.0.rope": {"class": "m.YarnRope"},
      "model.layers.0.mlp": {"class": "m.Moe"}, "model.layers.0.mlp.experts": {"class": "m.List"},
      "model.layers.0.mlp.experts.0":
          {"class": "torch.nn.modules.linear.Linear", "params": {"weight": "x"}},
      "model.layers.1": {"class": "m.Layer"},
      "model.layers.1.mlp": {"class": "m.Moe"}, "model.layers.1.mlp.experts": {"class": "m.List"},
      "model.layers.1.mlp.experts.0":
          {"class": "torch.nn.modules.linear.Linear", "params": {"weight": "x"}},
      "lm_head": {"class": "torch.nn.modules.linear.Linear", "params": {"weight": "x"}}}})";
  return ReadModuleTree(text, "tree.json").value();
}

RuleFile Rules(const std::string& text) {
  const auto file = ParseRuleFile(text, "r.yaml");
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *file : RuleFile();
}

// "name:rule" of each entry, "-" for none.
std::vector<std::string> Show(const RuleMap& map) {
  std::vector<std::string> shown;
  for (const MapEntry& entry : map.entries) {
    shown.push_back(absl::StrCat(entry.name, ":", entry.rule < 0 ? "-" : absl::StrCat(entry.rule)));
  }
  return shown;
}

RuleMap MapOf(const std::string& rules) {
  const ModuleTree tree = SmallTree();
  return MapModules(tree, Rules(rules));
}

std::string ErrorOf(const std::string& rules) {
  const RuleMap map = MapOf(rules);
  return map.errors.empty() ? "" : FormatDiagnostic(map.errors[0]);
}

TEST(RuleMap, FirstRuleThatFitsWinsAndDefaultEndsTheSearchToo) {
  EXPECT_THAT(Show(MapOf("- {match: {name: lm_head}, replace: {class: default}}\n"
                         "- {match: {class: torch.nn.Linear}, replace: {class: a.B}}\n"
                         "- {match: {name: ''}, replace: {class: a.C}, recursive: no}\n")),
              ElementsAre(":2"));
  EXPECT_THAT(
      Show(MapOf("- {match: {name: lm_head}, replace: {class: default}}\n"
                 "- {match: {class: torch.nn.Linear}, replace: {class: a.B}}\n")),
      ElementsAre(":-", "model:-", "model.layers:-", "model.layers.0:-", "model.layers.0.rope:-",
                  "model.layers.0.mlp:-", "model.layers.0.mlp.experts:-",
                  "model.layers.0.mlp.experts.0:1", "model.layers.1:-", "model.layers.1.mlp:-",
                  "model.layers.1.mlp.experts:-", "model.layers.1.mlp.experts.0:1", "lm_head:0"));
}

TEST(RuleMap, ClassesFitWhatDerivesFromThem) {
  const RuleMap map = MapOf("- {match: {class: m.Rope}, replace: {}}\n");
  EXPECT_EQ(map.Find("model.layers.0.rope")->rule, 0);
  EXPECT_EQ(MapOf("- {match: {class: Rope}, replace: {}}\n").Find("model.layers.0.rope")->rule, 0);
  EXPECT_EQ(MapOf("- {match: {class: x.Rope}, replace: {}}\n").Find("model.layers.0.rope")->rule,
            -1);
  EXPECT_EQ(MapOf("- {match: {class: torch.nn.Module, name: '^$'}, replace: {}}\n").Find("")->rule,
            0);
  EXPECT_EQ(MapOf("- {match: {class: torch.nn.Module, name: rope}, replace: {}}\n")
                .Find("model.layers.0.rope")
                ->rule,
            0);
}

TEST(RuleMap, RecursiveIsPythonsBool) {
  for (const char* no : {"False", "no", "0", "null", "off", "''", "[]"}) {
    EXPECT_EQ(MapOf(absl::StrCat("- {match: {name: '^model$'}, replace: {}, recursive: ", no, "}"))
                  .entries.size(),
              3u)
        << no;
  }
  for (const char* yes : {"True", "'False'", "1", "yes"}) {
    EXPECT_EQ(MapOf(absl::StrCat("- {match: {name: '^model$'}, replace: {}, recursive: ", yes, "}"))
                  .entries.size(),
              13u)
        << yes;
  }
}

TEST(RuleMap, ExpertsThatDifferAreListedOneByOne) {
  const RuleMap map = MapOf("- {match: {name: '0\\.mlp\\.experts\\.[12]'}, replace: {}}\n");
  EXPECT_THAT(map.collapsed, ElementsAre("model.layers.1.mlp.experts"));
  EXPECT_EQ(map.entries.size(), 15u);
  EXPECT_EQ(map.Find("model.layers.0.mlp.experts.0")->rule, -1);
  EXPECT_EQ(map.Find("model.layers.0.mlp.experts.2")->rule, 0);
}

TEST(RuleMap, MistakesCountWhenAModuleReachesThem) {
  EXPECT_EQ(ErrorOf("- {match: {class: none.Such, name: '('}, replace: {}}\n"), "");
  EXPECT_EQ(ErrorOf("- {match: {name: '.*'}, replace: {}}\n- {match: {name: '('}, replace: {}}\n"),
            "");
  EXPECT_EQ(ErrorOf("- {match: {name: 'a('}, replace: {}}\n"),
            "r.yaml:1:18: error: bad regular expression `a(`: missing closing parenthesis at "
            "offset 2 [bad-regex]");
  EXPECT_EQ(ErrorOf("- {replace: {}}\n"), "r.yaml:1:3: error: the rule has no `match` [no-match]");
  EXPECT_EQ(ErrorOf("- {match: {}, replace: {}}\n"),
            "r.yaml:1:11: error: `match` must have at least one of `class` and `name` [no-match]");
  EXPECT_THAT(ErrorOf("- {match: ~, replace: {}}\n"), HasSubstr("got nothing"));
  EXPECT_THAT(ErrorOf("- {match: {name: 3}, replace: {}}\n"),
              HasSubstr("`name` must be a regular expression, got `3`"));
  EXPECT_THAT(ErrorOf("- words\n"), HasSubstr("a rule must be a map"));
  EXPECT_EQ(ErrorOf("- {match: {name: lm_head}}\n"),
            "r.yaml:1:3: error: the rule has no `replace` [no-replace]");
  EXPECT_EQ(ErrorOf("- {match: {name: nothing}}\n"), "");
}

TEST(RuleMap, APatternCannotHang) {
  EXPECT_THAT(ErrorOf("- {match: {name: '^(([a-z.0-9]+)*)*[A-Z]$'}, replace: {}}\n"),
              HasSubstr("takes too many steps for `"));
}

std::string JsonOf(const std::string& rules, const std::string& module) {
  const ModuleTree tree = SmallTree();
  const RuleFile file = Rules(rules);
  return Json::parse(RuleMapJson(MapModules(tree, file), file))["modules"][module].dump();
}

TEST(RuleMap, KwargsAreVerbatimAndTypedAsYamlOneDotOne) {
  EXPECT_EQ(
      JsonOf("- match: {name: lm_head}\n"
             "  replace: {class: a.B, kwargs: {prefill_op: None, generate_op: ~, a: 010,\n"
             "    b: 1:30, c: 0o10, d: 'no', e: no, transfer_map: {2: \"cuda:1\"}, f: 1.5}}\n",
             "lm_head"),
      R"({"op":"a.B","generate_device":null,"prefill_device":null,"generate_op":null,)"
      R"("prefill_op":"None","other_kwargs":{"a":8,"b":90,"c":"0o10","d":"no","e":false,)"
      R"("transfer_map":{"2":"cuda:1"},"f":1.5},"rule_index":0,"recursive":true})");
  EXPECT_EQ(JsonOf("[]", "lm_head"),
            R"({"op":"default","generate_device":"cuda:0","prefill_device":"cuda:0",)"
            R"("generate_op":null,"prefill_op":null,"rule_index":null,"recursive":true})");
  // Without kwargs there is no device at all; a text for `replace` counts as none.
  for (const char* replace : {"{class: default}", "{class: default, kwargs: ~}", "words"}) {
    EXPECT_EQ(JsonOf(absl::StrCat("- {match: {name: lm_head}, replace: ", replace, "}"), "lm_head"),
              R"({"op":"default","generate_device":null,"prefill_device":null,)"
              R"("generate_op":null,"prefill_op":null,"rule_index":0,"recursive":true})");
  }
}

TEST(RuleMap, FindsWhoOwnsWhatIsBelowARuleThatIsNotRecursive) {
  const RuleMap map = MapOf("- {match: {name: 'experts$'}, replace: {}, recursive: False}\n");
  EXPECT_EQ(map.Find("model.layers.1.mlp.experts.2.up_proj")->name, "model.layers.1.mlp.experts");
  EXPECT_EQ(map.Find("lm_head")->name, "lm_head");
}

TEST(RuleMap, AnOpOfExpertsHasTheirWeightsWhateverRulesTheyGet) {
  const std::string rules = R"(
- match: {name: 'experts$'}
  replace: {class: ktransformers.operators.experts.KTransformersExperts}
- {match: {name: '.'}, replace: {}}
)";
  const RuleMap map = MapOf(rules);
  const std::string expert = "model.layers.1.mlp.experts.0.up_proj";
  EXPECT_EQ(map.Find(expert)->rule, 1) << "the walk goes on below";
  EXPECT_EQ(map.FindOwner(expert)->name, "model.layers.1.mlp.experts");
  EXPECT_EQ(map.FindOwner("model.layers.1.mlp.experts")->rule, 0);
  EXPECT_EQ(map.FindOwner("lm_head")->name, "lm_head");
  // A rule that only places the list has no weights to place.
  EXPECT_EQ(MapOf("- {match: {name: 'experts$'}, replace: {}}\n").FindOwner(expert)->rule, -1);
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
