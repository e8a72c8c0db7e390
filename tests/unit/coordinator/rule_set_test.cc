#include "coordinator/placement/rule_set.h"

#include <cstdlib>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::string Mistakes(const std::string& text) {
  const absl::StatusOr<RuleSet> rules = ParseRules(text, "r.yaml");
  EXPECT_EQ(rules.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(rules.status().message());
}

TEST(RuleSetTest, ReadsAllForms) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules(R"(
- match: {layers: 0-14}
  place: cpu:0
- match:
    layers: [0-3, 8]
    role: mlp
  place: cpu:1
- match: {role: [embedding, norm, lm_head, attention]}
  place: cpu:1
- match: {layers: 5, role: mlp, experts: 0-3}
  place: cpu:0
- match: {}
  place: cpu:2
)",
                                                     "r.yaml"));
  ASSERT_EQ(set.rules.size(), 5u);
  EXPECT_EQ(set.file, "r.yaml");
  EXPECT_THAT(set.rules[0].layers, ElementsAre(Pair(0, 14)));
  EXPECT_EQ(set.rules[0].place, "cpu:0");
  EXPECT_EQ(set.rules[0].location, "r.yaml:2:3");
  EXPECT_EQ(set.rules[0].place_location, "r.yaml:3:10");
  EXPECT_EQ(set.rules[0].layers_location, "r.yaml:2:19");
  EXPECT_THAT(set.rules[1].layers, ElementsAre(Pair(0, 3), Pair(8, 8)));
  EXPECT_THAT(set.rules[1].roles, ElementsAre(OpKind::kMlp));
  EXPECT_THAT(set.rules[2].roles,
              ElementsAre(OpKind::kEmbedding, OpKind::kNorm, OpKind::kLmHead, OpKind::kAttention));
  EXPECT_EQ(set.rules[2].layers_location, "");
  EXPECT_THAT(set.rules[3].experts, ElementsAre(Pair(0, 3)));
  EXPECT_THAT(set.rules[4].layers, IsEmpty());
}

TEST(RuleSetTest, MatchesWhenAllConditionsDo) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules(R"(
- {match: {layers: [0-3, 8], role: mlp}, place: a}
- {match: {layers: 0-1}, place: a}
- {match: {role: norm}, place: a}
- {match: {}, place: a}
- {match: {experts: 0}, place: a}
)",
                                                     "r"));
  const Op mlp3{OpKind::kMlp, 3};
  const Op mlp8{OpKind::kMlp, 8};
  const Op mlp4{OpKind::kMlp, 4};
  const Op attention3{OpKind::kAttention, 3};
  const Op attention1{OpKind::kAttention, 1};
  const Op embedding{OpKind::kEmbedding, -1};
  const Op norm{OpKind::kNorm, -1};
  EXPECT_TRUE(set.rules[0].Matches(mlp3));
  EXPECT_TRUE(set.rules[0].Matches(mlp8));
  EXPECT_FALSE(set.rules[0].Matches(mlp4));
  EXPECT_FALSE(set.rules[0].Matches(attention3));
  EXPECT_TRUE(set.rules[1].Matches(attention1));
  EXPECT_FALSE(set.rules[1].Matches(embedding)) << "it is in no layer";
  EXPECT_TRUE(set.rules[2].Matches(norm));
  EXPECT_FALSE(set.rules[2].Matches(embedding));
  EXPECT_TRUE(set.rules[3].Matches(embedding));
  EXPECT_FALSE(set.rules[4].Matches(mlp3)) << "a dense layer has none";
}

TEST(RuleSetTest, MatchesPartsOfLayersWithExperts) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules(R"(
- {match: {role: mlp}, place: a}
- {match: {role: [router, shared_experts]}, place: a}
- {match: {role: experts, experts: [0-3, 6]}, place: a}
- {match: {layers: 3, experts: 0-3}, place: a}
)",
                                                     "r"));
  const Op router{OpKind::kRouter, 3};
  const Op shared{OpKind::kSharedExperts, 3};
  const auto experts = [](int begin, int end) { return Op{OpKind::kExperts, 3, begin, end}; };
  for (const Op& op : {router, shared, experts(0, 8)}) EXPECT_TRUE(set.rules[0].Matches(op));
  EXPECT_TRUE(set.rules[1].Matches(router));
  EXPECT_TRUE(set.rules[1].Matches(shared));
  EXPECT_FALSE(set.rules[1].Matches(experts(0, 1)));
  EXPECT_TRUE(set.rules[2].Matches(experts(1, 4)));
  EXPECT_TRUE(set.rules[2].Matches(experts(6, 7)));
  EXPECT_FALSE(set.rules[2].Matches(experts(3, 5)));
  EXPECT_FALSE(set.rules[2].Matches(router));
  EXPECT_TRUE(set.rules[3].Matches(experts(0, 4)));
  EXPECT_FALSE(set.rules[3].Matches({OpKind::kExperts, 4, 0, 4}));
}

TEST(RuleSetTest, ListsAllMistakesAtOnce) {
  EXPECT_EQ(
      Mistakes(R"(
- match: {layer: 0-14}
  place: cpu:0
- match: {layers: 14-0, role: atention}
- place: cpu:0
- match: {layers: [0, 3-, -1, 1.5, [2]], role: []}
  place:
- match: {layers: 0-123456, layers: 1}
  plce: cpu:1
- match: {role: attention, experts: 0-3}
  place: [cpu:0]
- just text
- match: layers
  place: cpu:0
- match: {role: decoder, layers: []}
  place: cpu:0
)"),
      "r.yaml:2:11: unknown key `layer` in `match`; did you mean `layers`?\n"
      "r.yaml:4:3: the rule has no `place`; name a worker, as in `place: cpu:0`\n"
      "r.yaml:4:19: `layers` has the range 14-0 backwards; did you mean 0-14?\n"
      "r.yaml:4:31: unknown role `atention`; did you mean `attention`?\n"
      "r.yaml:5:3: the rule has no `match`; `match: {}` matches every module\n"
      "r.yaml:6:23: `layers` must be a number (5), a range (0-14) or a list of these, got "
      "`3-`\n"
      "r.yaml:6:27: `layers` must be a number (5), a range (0-14) or a list of these, got "
      "`-1`\n"
      "r.yaml:6:31: `layers` must be a number (5), a range (0-14) or a list of these, got "
      "`1.5`\n"
      "r.yaml:6:36: `layers` must be a number (5), a range (0-14) or a list of these, got a "
      "list\n"
      "r.yaml:6:48: `role` is an empty list\n"
      "r.yaml:7:3: `place` must be a word, got nothing\n"
      "r.yaml:8:3: the rule has no `place`; name a worker, as in `place: cpu:0`\n"
      "r.yaml:8:19: `layers` must be a number (5), a range (0-14) or a list of these, got "
      "`0-123456`\n"
      "r.yaml:8:29: `layers` is given twice, first at r.yaml:8:11\n"
      "r.yaml:9:3: unknown key `plce` in a rule; did you mean `place`?\n"
      "r.yaml:10:37: `experts` go with the roles `experts` and `mlp`, and no other\n"
      "r.yaml:11:10: `place` must be a word, got a list\n"
      "r.yaml:12:3: a rule must be a map, got `just text`\n"
      "r.yaml:13:10: `match` must be a map, got `layers`\n"
      "r.yaml:15:17: unknown role `decoder`; known: embedding, attention, mlp, norm, lm_head, "
      "router, experts, shared_experts\n"
      "r.yaml:15:34: `layers` is an empty list");
}

TEST(RuleSetTest, RefusesWhatIsNoListOfRules) {
  EXPECT_EQ(Mistakes("a: 1\n"),
            "r.yaml:1:1: a rules file is a list of rules (- match: ..., place: ...), got a map");
  EXPECT_EQ(Mistakes(""),
            "r.yaml: a rules file is a list of rules (- match: ..., place: ...), got nothing");
  EXPECT_EQ(Mistakes("[]"),
            "r.yaml:1:1: a rules file is a list of rules (- match: ..., place: ...), got an empty "
            "one");
  EXPECT_THAT(Mistakes("- match: {layers: 1\n"), HasSubstr("not valid YAML"));
}

TEST(RuleSetTest, NamesKTransformersFiles) {
  const std::string text = R"(
- match:
    name: "^model\\.layers\\..*\\.mlp$"
    class: ktransformers.models.modeling_deepseek_v3.DeepseekV3MoE
  replace:
    class: ktransformers.operators.experts.KDeepseekV3MoE
    kwargs: {generate_device: "cuda"}
)";
  EXPECT_EQ(Mistakes(text),
            "r.yaml:2:1: this is a KTransformers rules file (match name/class, replace); reading "
            "these comes with a later version of Dovetail. Today's form is `- match: {layers: "
            "0-14}` with `place: cpu:0`");
}

TEST(RuleSetTest, MissingFiles) {
  EXPECT_THAT(
      LoadRules("/nonexistent/r.yaml"),
      StatusIs(absl::StatusCode::kNotFound, "/nonexistent/r.yaml: the rules file cannot be read"));
  EXPECT_THAT(LoadRules("/tmp"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/tmp")));
}

TEST(RuleSetTest, EveryFileOfTheRulesFolderLoads) {
  const char* source = std::getenv("DOVETAIL_SOURCE");
  if (source == nullptr) GTEST_SKIP() << "DOVETAIL_SOURCE is not set";
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(source) + "/rules")) {
    if (entry.path().extension() != ".yaml") continue;
    EXPECT_OK(LoadRules(entry.path())) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 3);
}

}  // namespace
}  // namespace dovetail::coordinator
