#include "coordinator/placement/explain.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kRules[] = R"(- match: {layers: 1}
  place: cpu:0
- match: {role: mlp}
  place: cpu:1
- match: {layers: 0-20}
  place: cpu:0
)";

PlacedModule Placed(int layer, const std::string& device, const RuleRef& rule) {
  PlacedModule module;
  module.op = {OpKind::kMlp, layer};
  module.module = absl::StrCat("model.layers.", layer, ".mlp");
  module.device = device;
  module.rule = rule;
  return module;
}

Plan TwoModules(const RuleSet& rules) {
  Plan plan;
  plan.modules.push_back(Placed(1, "cpu:0", rules.rules[0].ref));
  plan.modules.push_back(Placed(12, "cpu:1", rules.rules[1].ref));
  return plan;
}

TEST(ExplainTest, LaterRulesThatMatchAreShadowed) {
  ASSERT_OK_AND_ASSIGN(const RuleSet rules, ParseRules(kRules, "r.yaml"));
  const auto all = ExplainPlan(TwoModules(rules), &rules, "");
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].worker, "cpu:0");
  EXPECT_EQ(all[0].rule, rules.rules[0].ref.location());
  EXPECT_THAT(all[0].shadowed,
              ElementsAre(rules.rules[1].ref.location(), rules.rules[2].ref.location()));
  EXPECT_THAT(all[1].shadowed, ElementsAre(rules.rules[2].ref.location()));
}

TEST(ExplainTest, NamesEndAtABorder) {
  ASSERT_OK_AND_ASSIGN(const RuleSet rules, ParseRules(kRules, "r.yaml"));
  const Plan plan = TwoModules(rules);
  EXPECT_THAT(ExplainPlan(plan, nullptr, "model.layers.1"), SizeIs(1));
  EXPECT_THAT(ExplainPlan(plan, nullptr, "model"), SizeIs(2));
  EXPECT_THAT(ExplainPlan(plan, nullptr, "model.layers.1.mlp.x"), IsEmpty());
  EXPECT_THAT(ExplainPlan(plan, nullptr, "model.layers.2"), IsEmpty());
}

}  // namespace
}  // namespace dovetail::coordinator
