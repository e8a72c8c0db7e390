#include "coordinator/placement/ktransformers/rule_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dovetail::coordinator::ktransformers {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> WarningsOf(const std::string& text) {
  const auto file = ParseRuleFile(text, "r.yaml");
  EXPECT_TRUE(file.ok()) << file.status();
  std::vector<std::string> shown;
  if (file.ok()) {
    for (const Diagnostic& d : file->diagnostics) shown.push_back(FormatDiagnostic(d));
  }
  return shown;
}

std::string ErrorOf(const std::string& text) {
  return std::string(ParseRuleFile(text, "r.yaml").status().message());
}

TEST(RuleFile, ReadsWhatItHasAndWhereItStands) {
  const auto file = ParseRuleFile(
      "- match:\n    name: \"^lm_head\"\n    class: torch.nn.Linear\n"
      "  replace:\n    class: a.B\n    kwargs: {generate_device: cuda:1, generate_device: cpu}\n"
      "  recursive: False\n",
      "r.yaml");
  ASSERT_TRUE(file.ok()) << file.status();
  const Rule& rule = file->rules.at(0);
  EXPECT_EQ(rule.name, "^lm_head");
  EXPECT_EQ(rule.match_class, "torch.nn.Linear");
  EXPECT_EQ(rule.op, "a.B");
  EXPECT_EQ(rule.Device("generate_device"), "cpu");
  EXPECT_EQ(rule.Device("prefill_device"), "");
  EXPECT_FALSE(rule.recursive);
  EXPECT_EQ(rule.place.line, 1);
  EXPECT_EQ(rule.name_place.line, 2);
  EXPECT_EQ(rule.match_class_place.line, 3);
  EXPECT_EQ(rule.op_place.line, 5);
}

TEST(RuleFile, UnknownKeysAreNamedWithTheNearestKnownOne) {
  EXPECT_THAT(WarningsOf("- match: {nmae: a, name: b}\n  replace: {class: default, device: x,\n"
                         "    kwargs: {genrate_device: cpu, "
                         "per_layer_prefill_intput_threshold: 0}}\n  recursiv: no\n"),
              ElementsAre("r.yaml:4:3: warning: unknown key `recursiv` in a rule is ignored; did "
                          "you mean `recursive`? [unknown-key]",
                          "r.yaml:1:11: warning: unknown key `nmae` in `match` is ignored; did you "
                          "mean `name`? [unknown-key]",
                          "r.yaml:2:29: warning: unknown key `device` in `replace` is ignored; "
                          "known: class, kwargs [unknown-key]",
                          "r.yaml:3:14: warning: unknown key `genrate_device` in `kwargs` is "
                          "ignored; did you mean `generate_device`? [unknown-key]"));
}

TEST(RuleFile, OddValuesAreSaid) {
  EXPECT_THAT(
      WarningsOf("- match: {name: a, name: b}\n  replace: words\n  recursive: 'False'\n"),
      ElementsAre("r.yaml:1:11: warning: `name` is given again in line 1; that one counts "
                  "[duplicate-key]",
                  "r.yaml:2:12: warning: `replace` must be a map with `class` and `kwargs`, got "
                  "`words`; KTransformers takes it for `class: default` without devices "
                  "[odd-value]",
                  "r.yaml:3:14: warning: `recursive` is the text `False`, which counts as true; "
                  "write `recursive: False` without quotes [odd-value]"));
  EXPECT_THAT(WarningsOf("- match: {name: a}\n  replace: {class: default, kwargs: 3}\n"),
              ElementsAre("r.yaml:2:37: warning: `kwargs` must be a map, got `3`; the modules of "
                          "this rule get no device [odd-value]"));
  EXPECT_THAT(WarningsOf("[]"), IsEmpty());
}

TEST(RuleFile, OnlyAListIsARuleFile) {
  EXPECT_EQ(ErrorOf(""),
            "r.yaml: a rules file is a list of rules (- match: ..., replace: ...), got nothing");
  EXPECT_EQ(ErrorOf("match: {name: a}\n"),
            "r.yaml:1:1: a rules file is a list of rules (- match: ..., replace: ...), got a map");
}

TEST(RuleFile, IsToldFromOurOwnForm) {
  const auto looks = [](const std::string& text) {
    return LooksLikeRuleFile(ReadYaml(text, "r.yaml").value());
  };
  EXPECT_TRUE(looks("- match: {name: a}\n"));
  EXPECT_TRUE(looks("- match: {class: a}\n  place: x\n"));
  EXPECT_TRUE(looks("- replace: {class: default}\n"));
  EXPECT_FALSE(looks("- match: {layers: 3}\n  place: cpu:0\n"));
  EXPECT_FALSE(looks("a: b\n"));
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
