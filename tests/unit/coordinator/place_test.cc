// KTransformers' rules and --override-tensor, applied to small models.
#include "coordinator/placement/ktransformers/place.h"

#include <gmock/gmock.h>

#include "coordinator/placement/device_spec.h"
#include "coordinator/placement/override_place.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Layers 0-3 on one card, 4-7 on another, the embedding on the CPU: as KTransformers' files do it.
constexpr const char* kTwoCards = R"yaml(
- match: {name: "^model.embed_tokens"}
  replace: {class: default, kwargs: {generate_device: cpu, prefill_device: cpu}}
- match: {name: "^model\\.layers\\.([0-3])\\.(?!input)", class: torch.nn.Linear}
  replace:
    class: ktransformers.operators.linear.KTransformersLinear
    kwargs: {
  generate_device : cuda, prefill_device : cuda, generate_op : KLinearMarlin}
- match: {name: "(^model\\.layers\\.([4-7])\\.)|(model.norm)|(lm_head)"}
  replace: {class: default, kwargs: {generate_device: "cuda:1", prefill_device: "cuda:1"}}
)yaml";

class PlaceTest : public PlanFixture {
 protected:
  Placement Apply(const std::string& rules, const std::vector<std::string>& specs,
                  const std::vector<std::string>& map = {}) {
    absl::StatusOr<RuleSet> set = ParseRules(rules, "r.yaml");
    EXPECT_OK(set.status());
    set->device_map = DeviceMap::Parse(map).value();
    return Place(config_, *file_, &*set, ParseDeviceSpecs(specs).value(), shape_);
  }
  Placement Override(const std::vector<std::string>& arguments,
                     const std::vector<std::string>& specs) {
    const absl::StatusOr<RuleSet> set = RulesOfOverrides(arguments, {});
    EXPECT_OK(set.status());
    return Place(config_, *file_, &*set, ParseDeviceSpecs(specs).value(), shape_);
  }
  // "device: ops" in order of appearance.
  std::vector<std::string> Where(const Placement& placement) const {
    std::vector<std::string> devices, lines;
    for (const ModulePlacement& module : placement.modules) {
      if (std::count(devices.begin(), devices.end(), module.device) == 0) {
        devices.push_back(module.device);
      }
    }
    for (const std::string& device : devices) {
      std::vector<Op> ops;
      for (const ModulePlacement& module : placement.modules) {
        if (module.device == device) ops.push_back(module.op);
      }
      lines.push_back(absl::StrCat(device, ": ", DescribeOps(config_, ops)));
    }
    return lines;
  }
  static std::vector<std::string> Errors(const Placement& placement) {
    std::vector<std::string> lines;
    for (const Diagnostic& d : placement.diagnostics) {
      if (d.severity == Severity::kError) lines.push_back(FormatDiagnostic(d));
    }
    return lines;
  }
  static std::vector<std::string> Said(const Placement& placement) {
    std::vector<std::string> lines;
    for (const Diagnostic& d : placement.diagnostics) lines.push_back(FormatDiagnostic(d));
    return lines;
  }
};

TEST_F(PlaceTest, GoesWhereTheRulesSay) {
  const Placement placement =
      Apply(kTwoCards, {"cpu:0:64GiB", "cuda:0:24GiB:sm89", "cuda:1:24GiB:sm89"});
  EXPECT_THAT(Where(placement), ElementsAre("cpu:0: embedding", "cuda:0: layers 0-3",
                                            "cuda:1: layers 4-7, norm, lm_head"));
  EXPECT_THAT(Errors(placement), ElementsAre());
  EXPECT_EQ(placement.modules[0].rule->line, 2);
  EXPECT_EQ(placement.modules[0].rule->index, 0);
  EXPECT_EQ(placement.modules[1].rule->line, 4) << "the norm before it has no rule";
  EXPECT_EQ(placement.modules[1].op_name, "attention.imma");
}

TEST_F(PlaceTest, CudaNumbersCountTheGpuWorkers) {
  EXPECT_THAT(Where(Apply(kTwoCards, {"host-b/cuda:3:24GiB", "cpu:7:64GiB", "cuda:9:24GiB"})),
              ElementsAre("cpu:7: embedding", "host-b/cuda:3: layers 0-3",
                          "cuda:9: layers 4-7, norm, lm_head"));
}

TEST_F(PlaceTest, MoreGpusThanThereAreAreRefusedWithTheCount) {
  EXPECT_THAT(Errors(Apply(kTwoCards, {"cpu:0:64GiB", "cuda:0:24GiB"})),
              ElementsAre("r.yaml: error: the rules use cuda:1, but there is 1 GPU worker; --map "
                          "cuda:1=cuda:0 uses another for it, --map cuda:*=cpu:0 uses the CPU for "
                          "all [unknown-device]"));
  EXPECT_THAT(Errors(Apply(kTwoCards, {"cpu:0:64GiB"})),
              ElementsAre("r.yaml: error: the rules use cuda:0, cuda:1, but there are no GPU "
                          "workers; --map cuda:*=cpu:0 uses the CPU for all [unknown-device]"));
  EXPECT_THAT(Errors(Apply(kTwoCards, {"cuda:0:24GiB", "cuda:1:24GiB"})),
              ElementsAre(HasSubstr("the rules place modules on `cpu`, but there is no CPU worker; "
                                    "known: cuda:0, cuda:1")));
}

TEST_F(PlaceTest, MapPutsOneDeviceOnAnother) {
  EXPECT_THAT(Where(Apply(kTwoCards, {"cpu:0:64GiB", "cuda:0:24GiB"}, {"cuda:1=cuda:0"})),
              ElementsAre("cpu:0: embedding", "cuda:0: layers 0-7, norm, lm_head"));
  EXPECT_THAT(Where(Apply(kTwoCards, {"cpu:0:64GiB", "cpu:1:64GiB"}, {"cuda:*=cpu:1"})),
              ElementsAre("cpu:0: embedding", "cpu:1: layers 0-7, norm, lm_head"));
  EXPECT_THAT(Errors(Apply(kTwoCards, {"cpu:0:64GiB"}, {"cuda:*=cpu:4"})),
              Contains(HasSubstr("there is no worker `cpu:4`; known: cpu:0")));
}

TEST_F(PlaceTest, CpuIsAllCpuWorkersInOrder) {
  EXPECT_THAT(Where(Apply(kTwoCards, {"cpu:0:64GiB", "cpu:1:64GiB"}, {"cuda:*=cpu"})),
              ElementsAre("cpu:0: embedding, layers 0-3", "cpu:1: layers 4-7, norm, lm_head"));
}

TEST_F(PlaceTest, AGpuThatIsNotThereIsNoCpu) {
  const std::vector<std::string> specs = {"cpu:0:64GiB", "simt:0:24GiB", "cpu:1:64GiB",
                                          "simt:1:24GiB"};
  EXPECT_THAT(Where(Apply(kTwoCards, specs, {"cuda:0=simt:1", "cuda:1=cpu"})),
              ElementsAre("cpu:0: embedding, layers 4-5", "simt:1: layers 0-3",
                          "cpu:1: layers 6-7, norm, lm_head"));
  EXPECT_THAT(Where(Override({"ffn=CPU"}, {"cpu:0:64GiB", "simt:0:24GiB"})),
              ElementsAre("simt:0: embedding, layers 0-7 attention, norm, lm_head",
                          "cpu:0: layers 0-7 mlp"));
}

TEST_F(PlaceTest, AForeignDeviceIsRefusedWithTheReason) {
  const std::string npu =
      "- match: {name: ''}\n  replace: {class: default, kwargs: {generate_device: npu}}\n";
  EXPECT_THAT(Errors(Apply(npu, {"cpu:0:64GiB"})),
              ElementsAre("r.yaml:1:3: error: the rules place modules on `npu:0`, but there are "
                          "workers for CPUs and NVIDIA GPUs alone; --map npu:*=cpu:0 places them "
                          "on a CPU worker [unsupported-device]"));
  EXPECT_THAT(Errors(Apply(npu, {"cpu:0:64GiB"}, {"npu:*=cpu:0"})), ElementsAre());
}

TEST_F(PlaceTest, AnOpWhoseMatricesLieApartGoesToTheDeviceOfMostBytes) {
  const Placement placement = Apply(R"(
- match: {name: "o_proj"}
  replace: {class: default, kwargs: {generate_device: cpu}}
- match: {name: ""}
  replace: {class: default, kwargs: {generate_device: cuda}}
)",
                                    {"cpu:0:64GiB", "cuda:0:24GiB"});
  EXPECT_THAT(Where(placement), ElementsAre("cuda:0: embedding, layers 0-7, norm, lm_head"));
  EXPECT_THAT(Said(placement),
              Contains("r.yaml:2:3: warning: o_proj of model.layers.0-7.self_attn is placed on cpu "
                       "and the rest on cuda:0, which has most of the bytes and takes all of it "
                       "[split-module]"));
}

TEST_F(PlaceTest, LintsOnTheWay) {
  EXPECT_THAT(
      Said(Apply(std::string(kTwoCards) + "- match: {name: nothing}\n  replace: {class: default}\n",
                 {"cpu:0:64GiB", "cuda:0:24GiB", "cuda:1:24GiB"})),
      Contains(HasSubstr("r.yaml:11:3: warning: rule 3 (line 11) never matches")));
}

TEST_F(PlaceTest, OverridesPlaceTensors) {
  EXPECT_THAT(Where(Override({"ffn=CPU"}, {"cpu:0:64GiB", "cuda:0:24GiB"})),
              ElementsAre("cuda:0: embedding, layers 0-7 attention, norm, lm_head",
                          "cpu:0: layers 0-7 mlp"));
  EXPECT_THAT(
      Where(Override({"blk\\.[0-3]\\.=CUDA1", ".*=CUDA0"}, {"cuda:0:24GiB", "cuda:1:24GiB"})),
      ElementsAre("cuda:0: embedding, layers 4-7, norm, lm_head", "cuda:1: layers 0-3"));
}

TEST_F(PlaceTest, OverridesThatPartAnOpOrMatchNothingAreSaid) {
  EXPECT_THAT(Said(Override({"ffn_up=CPU,nothing=CPU"}, {"cpu:0:64GiB", "cuda:0:24GiB"})),
              ElementsAre("--override-tensor: warning: tensors of model.layers.0-7.mlp are placed "
                          "apart; each goes as a whole to where its layer is, which has most of it "
                          "[split-module]",
                          "--override-tensor: warning: `nothing` matches no tensor that an earlier "
                          "pattern has left [never-matches]"));
  EXPECT_THAT(Errors(Override({"ffn=CUDA3"}, {"cpu:0:64GiB", "cuda:0:24GiB"})),
              ElementsAre(HasSubstr("the rules use cuda:3, but there is 1 GPU worker")));
}

}  // namespace
}  // namespace dovetail::coordinator
