#include "coordinator/placement/rule_set.h"

#include <cstdlib>
#include <filesystem>

#include "coordinator/placement/ktransformers/rule_file.h"
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
- match: {layers: 5, experts: 0-3}
  place: cpu:0
- match: {}
  place: cpu:2
)",
                                                     "r.yaml"));
  ASSERT_EQ(set.rules.size(), 5u);
  EXPECT_EQ(set.file, "r.yaml");
  EXPECT_THAT(set.rules[0].layers, ElementsAre(Pair(0, 14)));
  ASSERT_EQ(set.rules[0].shares.size(), 1u);
  EXPECT_EQ(set.rules[0].shares[0].device, "cpu:0");
  EXPECT_EQ(set.rules[0].ref.location(), "r.yaml:2:3");
  EXPECT_EQ(set.rules[0].shares[0].at.line, 3);
  EXPECT_EQ(set.rules[0].shares[0].at.col, 10);
  EXPECT_EQ(set.rules[0].layers_at.col, 19);
  EXPECT_THAT(set.rules[1].layers, ElementsAre(Pair(0, 3), Pair(8, 8)));
  EXPECT_THAT(set.rules[1].roles, ElementsAre(Role::kMlp));
  EXPECT_THAT(set.rules[2].roles,
              ElementsAre(Role::kEmbedding, Role::kNorm, Role::kLmHead, Role::kAttention));
  EXPECT_EQ(set.rules[2].layers_at.line, 0);
  EXPECT_THAT(set.rules[3].experts, ElementsAre(Pair(0, 3)));
  EXPECT_THAT(set.rules[3].roles, ElementsAre(Role::kExperts));
  EXPECT_THAT(set.rules[4].layers, IsEmpty());
}

TEST(RuleSetTest, MatchesWhenAllConditionsDo) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules(R"(
- {match: {layers: [0-3, 8], role: mlp}, place: cpu:0}
- {match: {layers: 0-1}, place: cpu:0}
- {match: {role: norm}, place: cpu:0}
- {match: {}, place: cpu:0}
- {match: {experts: 0}, place: cpu:0}
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
  EXPECT_FALSE(set.rules[4].Matches(mlp3)) << "a dense mlp has no experts";
}

TEST(RuleSetTest, MatchesPartsOfLayersWithExperts) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules(R"(
- {match: {role: mlp}, place: cpu:0}
- {match: {role: [router, shared_experts]}, place: cpu:0}
- {match: {role: experts, experts: [0-3, 6]}, place: cpu:0}
- {match: {layers: 3, experts: 0-3}, place: cpu:0}
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
      "r.yaml:15:17: unknown role `decoder`; known: embedding, attention, mlp, router, experts, "
      "shared_experts, norm, lm_head\n"
      "r.yaml:15:34: `layers` is an empty list");
}

TEST(RuleSetTest, ReadsSplitsGroupsAndOps) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules(R"(
devices:
  cuda:*: {memory: 22GiB, reserve: 1GiB}
  cpu:0: {reserve: 0}
kv: {type: f32, layers: [{layers: [0, 2-3], type: q8_0}, {layers: 3, type: f16}]}
rules:
- match: {role: attention}
  split: {cuda:0: 24, host-b/cuda:1: 37.5}
  op: dp4a
- match:
    layers: 3-60
    role: experts[0-31]
  place: numa:*
- {match: {experts: [0, 4-7]}, split: [numa:0, numa:1], by: experts}
- {match: {}, split: {cuda:*: 1, cpu:*: 3}, by: bytes}
)",
                                                     "r.yaml"));
  ASSERT_EQ(set.budgets.size(), 2u);
  EXPECT_EQ(set.budgets[0].device, "cuda:*");
  EXPECT_EQ(set.budgets[0].memory_bytes, int64_t{22} << 30);
  EXPECT_EQ(set.budgets[0].reserve_bytes, int64_t{1} << 30);
  EXPECT_EQ(set.budgets[0].at.line, 3);
  EXPECT_EQ(set.budgets[1].memory_bytes, std::nullopt);
  EXPECT_EQ(set.budgets[1].reserve_bytes, 0);
  EXPECT_EQ(set.kv_type, KvType::kF32);
  StepShape shape;
  ApplyKvTypes(set, 5, &shape);
  EXPECT_EQ(shape.kv_type, KvType::kF32);
  EXPECT_THAT(shape.layer_kv_types,
              ElementsAre(KvType::kQ8_0, KvType::kF32, KvType::kQ8_0, KvType::kF16, KvType::kF32));
  ASSERT_EQ(set.rules.size(), 4u);
  EXPECT_EQ(set.rules[0].shares[1].device, "host-b/cuda:1");
  EXPECT_EQ(set.rules[0].shares[1].weight, 37.5);
  EXPECT_EQ(set.rules[0].by, SplitBy::kLayers);
  EXPECT_EQ(set.rules[0].op, "dp4a");
  EXPECT_THAT(set.rules[1].experts, ElementsAre(Pair(0, 31)));
  EXPECT_THAT(set.rules[1].roles, ElementsAre(Role::kExperts));
  EXPECT_EQ(set.rules[1].by, SplitBy::kBytes) << "a group shares by what fits";
  EXPECT_THAT(set.rules[2].experts, ElementsAre(Pair(0, 0), Pair(4, 7)));
  EXPECT_EQ(set.rules[2].shares.size(), 2u);
  EXPECT_EQ(set.rules[2].by, SplitBy::kExperts);
  EXPECT_EQ(set.rules[3].by, SplitBy::kBytes);
  EXPECT_EQ(set.rules[3].ref.index, 3);
}

TEST(RuleSetTest, ListsMistakesInSplitsGroupsAndOps) {
  EXPECT_EQ(Mistakes(R"(
devices:
  gpu: {memory: 22GiB}
  cuda:0: {memory: lots, reserv: 1GiB}
kv: {type: q8}
rules:
- {match: {role: attention}, split: {cuda:0: 24, cuda:1: 0}, place: cpu:0}
- {match: {role: attention}, split: {cuda:0: 24, cuda:1: 0, cuda: 3}, by: layer}
- {match: {}, place: cpu, op: imna}
- {match: {experts: hot:32}, place: cpu:0}
- {match: {}, split: {}}
)"),
            "r.yaml:3:3: `gpu` is not a device or a group of devices, such as cuda:0 or cuda:*\n"
            "r.yaml:4:20: `memory` must be a size such as 22GiB, got `lots`\n"
            "r.yaml:4:26: unknown key `reserv` in `cuda:0`; did you mean `reserve`?\n"
            "r.yaml:5:12: `type` must be one of f32, f16, bf16, q8_0, got `q8`\n"
            "r.yaml:7:37: the rule has both `place` and `split`; give one of them\n"
            "r.yaml:8:58: `split` of cuda:1 must be a number above 0, got `0`\n"
            "r.yaml:8:61: `cuda` is not a device or a group of devices, such as cpu:0, cuda:*, "
            "numa:1 or host-b/cuda:0\n"
            "r.yaml:8:75: `by` must be layers, bytes, experts or rows, got `layer`\n"
            "r.yaml:9:22: `cpu` is not a device or a group of devices, such as cpu:0, cuda:*, "
            "numa:1 or host-b/cuda:0\n"
            "r.yaml:9:31: unknown op `imna`; did you mean `imma`?\n"
            "r.yaml:10:21: `experts: hot:32` needs statistics of which experts are used, and there "
            "are none yet; name experts by number, as in 0-31\n"
            "r.yaml:11:22: `split` must say how much each device takes, as in {cuda:0: 24, cuda:1: "
            "37}, got nothing");
}

TEST(RuleSetTest, RefusesWhatIsNoListOfRules) {
  EXPECT_EQ(Mistakes("a: 1\n"),
            "r.yaml:1:1: unknown key `a` in a rules file; known: devices, kv, rules\n"
            "r.yaml:1:1: the file has no `rules`: a list of rules (- match: ..., place: ...)");
  EXPECT_EQ(Mistakes(""),
            "r.yaml: a rules file is a list of rules (- match: ..., place: ...), got nothing");
  EXPECT_EQ(Mistakes("[]"),
            "r.yaml:1:1: a rules file is a list of rules (- match: ..., place: ...), got an empty "
            "one");
  EXPECT_THAT(Mistakes("- match: {layers: 1\n"), HasSubstr("not valid YAML"));
}

TEST(RuleSetTest, TakesKTransformersFiles) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules(R"(
- match:
    name: "^model\\.layers\\..*\\.mlp$"
    class: ktransformers.models.modeling_deepseek_v3.DeepseekV3MoE
  replace:
    class: ktransformers.operators.experts.KDeepseekV3MoE
    kwargs: {generate_device: "cuda"}
)",
                                                     "r.yaml"));
  ASSERT_NE(set.ktransformers, nullptr);
  EXPECT_EQ(set.ktransformers->rules.size(), 1u);
  EXPECT_TRUE(set.rules.empty());
}

TEST(RuleSetTest, SaysThatTextHasLostItsIndentation) {
  EXPECT_THAT(Mistakes("- match:\nname: \"a\"\nreplace:\nclass: default\n"),
              HasSubstr("r.yaml:2:1: `name:` stands where it cannot: the text has lost its "
                        "indentation, which probably was\n- match:\n    name: \"a\""));
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
