#include "coordinator/placement/plan_text.h"

#include "gmock/gmock.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class PlanTextTest : public PlanFixture {
 protected:
  Plan By(const std::string& rules, const std::vector<DeviceInfo>& devices) {
    const RuleSet set = ParseRules(rules, "r.yaml").value();
    return PlanByRules(config_, *file_, &set, devices, shape_);
  }
};

constexpr char kMlpApart[] = "- {match: {role: mlp}, place: cpu:1}\n- {match: {}, place: cpu:0}\n";

TEST_F(PlanTextTest, RoutesThatRepeatAreShort) {
  const auto route = [](const std::vector<std::string>& workers) {
    Route route;
    for (const std::string& worker : workers) route.push_back({worker, {}});
    return RouteText(route);
  };
  EXPECT_EQ(route({"a"}), "coordinator -> a -> coordinator");
  EXPECT_EQ(route({"a", "b"}), "coordinator -> a -> b -> coordinator");
  EXPECT_EQ(route({"a", "b", "a"}), "coordinator -> a -> b -> a -> coordinator");
  EXPECT_EQ(route({"a", "b", "a", "b", "a"}), "coordinator -> (a -> b) x 2 -> a -> coordinator");
  EXPECT_EQ(route({"c", "a", "b", "a", "b", "c"}),
            "coordinator -> c -> (a -> b) x 2 -> c -> coordinator");
}

TEST_F(PlanTextTest, SharedRowsAreNamed) {
  const Plan plan = By("- {match: {}, split: {cpu:0: 2, cpu:1: 1}, by: rows}\n", Devices(2));
  const std::string text = PlanText(config_, plan, PredictSpeed(config_, plan), {});
  EXPECT_THAT(text, HasSubstr("route: coordinator -> cpu:0 -> cpu:0 + cpu:1 -> coordinator\n"));
  EXPECT_THAT(text, HasSubstr("cpu:0 + cpu:1 by rows 2:1"));
  EXPECT_THAT(ExplainText(config_, plan, "lm_head"),
              HasSubstr("device: cpu:0 + cpu:1 by rows 2:1\n"));
  EXPECT_THAT(DescribePlan(plan, config_),
              HasSubstr("cpu:1: layers 0-7, norm, lm_head (shares rows with cpu:0)\n"));
}

TEST_F(PlanTextTest, EachRuleIsALine) {
  const Plan plan = By(kMlpApart, Devices(2));
  const std::string text = PlanText(config_, plan, PredictSpeed(config_, plan), {});
  EXPECT_THAT(text, HasSubstr("(llama, 8 layers) on 2 workers\n"));
  EXPECT_THAT(text, HasSubstr("layers 0-7 mlp"));
  EXPECT_THAT(text, HasSubstr("embedding, layers 0-7 attention, norm, lm_head"));
  EXPECT_THAT(text, HasSubstr("r.yaml:1\n"));
  EXPECT_THAT(text,
              HasSubstr("route: coordinator -> (cpu:0 -> cpu:1) x 8 -> cpu:0 -> coordinator"));
  EXPECT_THAT(text, HasSubstr("18 hops for each step, 16 of them with activations of 256 bytes"));
  EXPECT_THAT(text, HasSubstr("predicted, at most: decode "));
  EXPECT_THAT(text, HasSubstr("fits\n"));
  EXPECT_THAT(text, Not(HasSubstr(" \n"))) << "no trailing spaces";
}

TEST_F(PlanTextTest, WhatDoesNotFitSaysWhatWould) {
  std::vector<DeviceInfo> devices = Devices(1);
  devices[0].memory_bytes = int64_t{14} << 20;
  shape_.num_kv_blocks = 1 << 12;
  const Plan plan = By("- {match: {}, place: cpu:0}\n", devices);
  const std::string text =
      PlanText(config_, plan, PredictSpeed(config_, plan), NearestFits(config_, *file_, plan));
  EXPECT_THAT(text, HasSubstr("does not fit; what would:\n  kv_tokens "));
}

TEST_F(PlanTextTest, ExplainsModules) {
  const Plan plan = By(kMlpApart, Devices(2));
  const std::string one = ExplainText(config_, plan, "model.layers.3.mlp");
  EXPECT_THAT(one, HasSubstr("model.layers.3.mlp\n  device: cpu:1\n  op: mlp.p16\n"
                             "  decided by: r.yaml:1:3 (rule 1 of the file)\n"));
  EXPECT_THAT(one, HasSubstr("    blk.3.ffn_down.weight\n"));
  EXPECT_THAT(one, Not(HasSubstr("self_attn")));
  EXPECT_THAT(ExplainText(config_, plan, "model.layers.3"), HasSubstr("self_attn"));
  EXPECT_EQ(ExplainText(config_, plan, "model.layers.33"), "");
  EXPECT_EQ(ExplainText(config_, plan, "model.layers.3.ml"), "");
}

}  // namespace
}  // namespace dovetail::coordinator
