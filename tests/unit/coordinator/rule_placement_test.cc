#include "coordinator/placement/rule_placement.h"

#include "coordinator/placement/device_spec.h"
#include "gmock/gmock.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RulePlacementTest : public PlanFixture {
 protected:
  Placement Apply(const std::string& rules, const std::vector<DeviceInfo>& devices) {
    const absl::StatusOr<RuleSet> set = ParseRules(rules, "r.yaml");
    EXPECT_OK(set.status());
    return Place(config_, *file_, &*set, devices, shape_);
  }
  // What is said about the rules, one line each.
  std::vector<std::string> Said(const std::string& rules, const std::vector<DeviceInfo>& devices) {
    std::vector<std::string> lines;
    for (const Diagnostic& d :
         MakePlan(config_, *file_, Apply(rules, devices), devices, shape_).diagnostics) {
      lines.push_back(FormatDiagnostic(d));
    }
    return lines;
  }
  // Each device with its modules.
  std::vector<std::string> Where(const std::string& rules, const std::vector<DeviceInfo>& devices) {
    const Placement placement = Apply(rules, devices);
    std::vector<std::string> lines;
    for (const DeviceInfo& device : devices) {
      std::vector<Op> ops;
      for (const ModulePlacement& module : placement.modules) {
        if (module.device == device.name) ops.push_back(module.op);
      }
      if (!ops.empty()) lines.push_back(absl::StrCat(device.name, ": ", DescribeOps(config_, ops)));
    }
    return lines;
  }
  static std::vector<DeviceInfo> Specs(const std::vector<std::string>& specs) {
    return ParseDeviceSpecs(specs).value();
  }
};

TEST_F(RulePlacementTest, SplitsByLayers) {
  const auto devices = Specs({"cuda:0:24GiB", "cuda:1:24GiB", "cpu:0:64GiB"});
  EXPECT_THAT(Where("- {match: {}, split: {cuda:0: 3, cuda:1: 5}}\n", devices),
              ElementsAre("cuda:0: embedding, layers 0-2", "cuda:1: layers 3-7, norm, lm_head"));
  EXPECT_THAT(Where("- {match: {role: attention}, split: {cuda:0: 1, cuda:1: 1}}\n"
                    "- {match: {}, place: cpu:0}\n",
                    devices),
              ElementsAre("cuda:0: layers 0-3 attention", "cuda:1: layers 4-7 attention",
                          "cpu:0: embedding, layers 0-7 mlp, norm, lm_head"));
  EXPECT_THAT(
      Where("- {match: {}, split: [cuda:0, cuda:1]}\n", Specs({"cuda:0:3GiB", "cuda:1:7GiB"})),
      ElementsAre("cuda:0: embedding, layers 0-1", "cuda:1: layers 2-7, norm, lm_head"))
      << "without numbers by what fits";
}

TEST_F(RulePlacementTest, SplitsByBytes) {
  testing::TinyLlamaOptions options;
  options.vocab = 3200;  // the embedding is larger than all layers
  Open(options);
  const auto devices = Specs({"cpu:0:64GiB", "cpu:1:64GiB"});
  EXPECT_THAT(Where("- {match: {role: [embedding, attention, mlp]}, split: {cpu:0: 1, cpu:1: 1}, "
                    "by: bytes}\n- {match: {}, place: cpu:1}\n",
                    devices),
              ElementsAre("cpu:0: embedding, layer 0", "cpu:1: layers 1-7, norm, lm_head"));
}

TEST_F(RulePlacementTest, GroupsAreAllTheirDevices) {
  const auto devices =
      Specs({"cuda:0:24GiB", "cuda:1:24GiB", "cpu:0:64GiB:numa0", "cpu:1:64GiB:numa1"});
  EXPECT_THAT(
      Where("- {match: {role: attention}, place: cuda:*}\n"
            "- {match: {role: mlp}, place: numa:*}\n"
            "- {match: {}, place: numa:1}\n",
            devices),
      ElementsAre("cuda:0: layers 0-3 attention", "cuda:1: layers 4-7 attention",
                  "cpu:0: layers 0-3 mlp", "cpu:1: embedding, layers 4-7 mlp, norm, lm_head"));
}

TEST_F(RulePlacementTest, ModulesKnowTheirOpAndRule) {
  const Placement placement =
      Apply("- {match: {role: attention}, place: cuda:0, op: dp4a}\n- {match: {}, place: cpu:0}\n",
            Specs({"cuda:0:24GiB", "cpu:0:64GiB"}));
  EXPECT_EQ(placement.modules[0].op_name, "embedding");
  EXPECT_EQ(placement.modules[1].op_name, "attention.dp4a");
  EXPECT_EQ(placement.modules[1].rule, (RuleRef{"r.yaml", 1, 3, 0}));
  EXPECT_EQ(placement.modules[2].op_name, "mlp.p16");
  EXPECT_EQ(placement.modules[2].rule, (RuleRef{"r.yaml", 2, 3, 1}));
}

TEST_F(RulePlacementTest, SaysWhatIsProbablyWrong) {
  EXPECT_THAT(Said(R"(
- {match: {layers: 0-3}, place: cpu:0}
- {match: {layers: 3-5}, place: cpu:1}
- {match: {layers: 1-2, role: mlp}, place: cpu:1}
- {match: {role: experts}, place: cpu:1}
- {match: {role: [embedding, norm]}, place: cpu:0}
- {match: {}, place: cpu:1, op: imma}
- {match: {layers: 4}, place: cpu:0}
)",
                   Devices(2)),
              ElementsAre("r.yaml:3:20: warning: layer 3 belongs to the earlier rule at line 2 as "
                          "well, which decides [layer-overlap]",
                          "r.yaml:4:3: warning: the rule never decides: all that it matches is "
                          "taken by the earlier rule at line 2 [shadowed-rule]",
                          "r.yaml:5:3: warning: the rule matches no module of the model "
                          "[never-matches]",
                          "r.yaml:7:3: warning: lm_head is on cpu:1 and model.norm on cpu:0: one "
                          "hop more for each step, with 256 bytes for each sequence "
                          "[head-away-from-norm]",
                          "r.yaml:7:33: warning: cpu:1 cannot run `imma`; it takes `p16`, with the "
                          "same results [op-fallback]",
                          "r.yaml:8:3: warning: the rule never decides: all that it matches is "
                          "taken by the earlier rule at line 3 [shadowed-rule]"));
}

TEST_F(RulePlacementTest, SaysNothingAboutExceptionsAndRests) {
  EXPECT_THAT(Said(R"(
- {match: {layers: 3, role: mlp}, place: cpu:1}
- {match: {layers: 0-3}, place: cpu:0}
- {match: {}, place: cpu:0}
)",
                   Devices(2)),
              IsEmpty());
}

TEST_F(RulePlacementTest, DevicesShareRows) {
  const auto devices = Devices(2);
  const Placement placement =
      Apply("- {match: {}, split: {cpu:1: 2, cpu:0: 1}, by: rows}\n", devices);
  EXPECT_TRUE(placement.diagnostics.empty());
  const std::vector<Member> members = {{"cpu:1", 2}, {"cpu:0", 1}};
  for (const ModulePlacement& module : placement.modules) {
    EXPECT_EQ(module.device, "cpu:1");
    const bool embedding = module.op.kind == OpKind::kEmbedding;
    EXPECT_EQ(module.members, embedding ? std::vector<Member>() : members) << module.module;
  }
  const Placement group = Apply("- {match: {}, place: cpu:*, by: rows}\n", Devices(2));
  EXPECT_EQ(group.modules[1].members, (std::vector<Member>{{"cpu:0", 1}, {"cpu:1", 1}}))
      << "without numbers evenly";
  const Placement one = Apply("- {match: {}, split: [cpu:*], by: rows}\n", Devices(1));
  EXPECT_THAT(one.modules[1].members, IsEmpty());
}

TEST_F(RulePlacementTest, RowsThatCannotBeSharedAreErrors) {
  EXPECT_THAT(Said("- {match: {}, split: [cpu:0, cpu:1, cpu:2], by: rows}\n", Devices(3)),
              ElementsAre("r.yaml:1:49: error: 3 devices cannot share the rows of "
                          "model.layers.0.self_attn: it has 2 KV heads [row-split]"));
  EXPECT_THAT(Said("- {match: {}, split: [cpu:0, cpu:*], by: rows}\n", Devices(2)),
              ElementsAre("r.yaml:1:23: error: the split by rows means cpu:0 twice [row-split]"));
  EXPECT_THAT(Said("- {match: {}, split: [cpu:*], by: rows}\n", Devices(17)),
              ElementsAre("r.yaml:1:23: error: rows can be shared by 16 devices, not by 17 "
                          "[row-split]"));
  EXPECT_THAT(Said("- {match: {}, split: {cpu:0: 1, cpu:7: 1}, by: rows}\n", Devices(2)),
              ElementsAre("r.yaml:1:33: error: unknown worker `cpu:7`; known: cpu:0, cpu:1 "
                          "[unknown-device]"));
}

TEST_F(RulePlacementTest, PartsOfALayerWithExpertsShareRowsTogether) {
  testing::TinyLlamaOptions options;
  options.experts = 4;
  Open(options);
  EXPECT_THAT(Said("- {match: {role: mlp}, split: [cpu:0, cpu:1], by: rows}\n"
                   "- {match: {}, place: cpu:0}\n",
                   Devices(2)),
              IsEmpty());
  EXPECT_THAT(Said("- {match: {role: experts}, split: [cpu:0, cpu:1], by: rows}\n"
                   "- {match: {}, place: cpu:0}\n",
                   Devices(2)),
              ElementsAre("r.yaml:1:55: error: `by: rows` shares model.layers.0.mlp.experts[0-3] "
                          "and not all other parts of model.layers.0.mlp alike: match `role: mlp` "
                          "[row-split]"));
  // A router that goes with its attention is with the first device.
  const Placement placement = Apply(
      "- {match: {role: experts}, place: cpu:1}\n"
      "- {match: {}, split: [cpu:0, cpu:1], by: rows}\n",
      Devices(2));
  EXPECT_TRUE(placement.diagnostics.empty());
  EXPECT_EQ(placement.modules[1].members.size(), 2u);
  EXPECT_EQ(placement.modules[2].op.kind, OpKind::kRouter);
  EXPECT_EQ(placement.modules[2].device, "cpu:0");
  EXPECT_THAT(placement.modules[2].members, IsEmpty());
}

TEST_F(RulePlacementTest, HolesAndUnknownDevicesAreErrors) {
  EXPECT_THAT(Said("- {match: {layers: 0-2}, place: cpu:0}\n"
                   "- {match: {layers: 4-7}, split: {cuda:*: 1, cpu:3: 2}}\n"
                   "- {match: {role: [embedding, norm, lm_head]}, place: cpu:0}\n",
                   Devices(2)),
              ElementsAre("r.yaml: error: no rule places model.layers.3; a last rule `match: {}` "
                          "takes what is left [unplaced]",
                          "r.yaml:2:34: error: no device belongs to `cuda:*`; known: cpu:0, cpu:1 "
                          "[unknown-device]",
                          "r.yaml:2:45: error: unknown worker `cpu:3`; known: cpu:0, cpu:1 "
                          "[unknown-device]"));
}

TEST_F(RulePlacementTest, BudgetsAreForTheDevicesThatTheyName) {
  ASSERT_OK_AND_ASSIGN(const RuleSet set, ParseRules("devices:\n"
                                                     "  cuda:*: {memory: 22GiB, reserve: 2GiB}\n"
                                                     "  cuda:1: {memory: 90GiB}\n"
                                                     "  cuda:7: {memory: 1GiB}\n"
                                                     "rules: [{match: {}, place: cuda:*}]\n",
                                                     "r.yaml"));
  auto devices = Specs({"cuda:0:24GiB", "cuda:1:24GiB"});
  std::vector<Diagnostic> diagnostics;
  ApplyBudgets(set, &devices, &diagnostics);
  EXPECT_EQ(devices[0].budget(), int64_t{20} << 30);
  EXPECT_EQ(devices[1].budget(), int64_t{22} << 30) << "not more than there is";
  ASSERT_EQ(diagnostics.size(), 1u);
  EXPECT_EQ(FormatDiagnostic(diagnostics[0]),
            "r.yaml:4:3: warning: `cuda:7` is none of the devices: cuda:0, cuda:1 "
            "[unknown-device]");
}

}  // namespace
}  // namespace dovetail::coordinator
