#include "coordinator/placement/explain.h"

#include <tuple>

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

Plan TwoModules() {
  Plan plan;
  for (const auto& [layer, device, rule] :
       {std::tuple{1, "cpu:0", RuleRef{"r.yaml", 1, 3, 0}}, {12, "cpu:1", {"r.yaml", 3, 3, 1}}}) {
    PlacedModule& module = plan.modules.emplace_back();
    module.op = {OpKind::kMlp, layer};
    module.module = absl::StrCat("model.layers.", layer, ".mlp");
    module.device = device;
    module.rule = rule;
  }
  return plan;
}

TEST(ExplainTest, LaterRulesThatMatchAreShadowed) {
  ASSERT_OK_AND_ASSIGN(const RuleSet rules, ParseRules(kRules, "r.yaml"));
  const auto all = ExplainPlan(TwoModules(), &rules, "");
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].worker, "cpu:0");
  EXPECT_EQ(all[0].rule, rules.rules[0].ref.location());
  EXPECT_THAT(all[0].shadowed,
              ElementsAre(rules.rules[1].ref.location(), rules.rules[2].ref.location()));
  EXPECT_THAT(all[1].shadowed, ElementsAre(rules.rules[2].ref.location()));
}

TEST(ExplainTest, NamesEndAtABorder) {
  EXPECT_THAT(ExplainPlan(TwoModules(), nullptr, "model.layers.1"), SizeIs(1));
  EXPECT_THAT(ExplainPlan(TwoModules(), nullptr, "model"), SizeIs(2));
  EXPECT_THAT(ExplainPlan(TwoModules(), nullptr, "model.layers.1.mlp.x"), IsEmpty());
  EXPECT_THAT(ExplainPlan(TwoModules(), nullptr, "model.layers.2"), IsEmpty());
}

}  // namespace
}  // namespace dovetail::coordinator
