#include "coordinator/placement/rules_text.h"

#include "coordinator/placement/device_spec.h"
#include "gmock/gmock.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

class RulesTextTest : public PlanFixture {
 protected:
  std::vector<ModulePlacement> Auto(const std::vector<DeviceInfo>& devices) {
    return Place(config_, *file_, nullptr, devices, shape_).modules;
  }
  // Reads the text back and compares the devices.
  void ExpectRoundTrip(const std::vector<ModulePlacement>& modules,
                       const std::vector<DeviceInfo>& devices) {
    const std::string text = RulesText(modules);
    ASSERT_OK_AND_ASSIGN(const RuleSet rules, ParseRules(text, "r.yaml"));
    const Placement again = Place(config_, *file_, &rules, devices, shape_);
    EXPECT_TRUE(again.diagnostics.empty()) << text;
    ASSERT_EQ(again.modules.size(), modules.size());
    for (size_t i = 0; i < modules.size(); ++i) {
      EXPECT_EQ(again.modules[i].device, modules[i].device) << modules[i].module << "\n" << text;
      EXPECT_EQ(again.modules[i].members, modules[i].members) << modules[i].module << "\n" << text;
    }
  }
};

TEST_F(RulesTextTest, IsShortAndReadsBack) {
  const auto devices = Devices(2);
  const auto modules = Auto(devices);
  EXPECT_EQ(RulesText(modules),
            "- match: {role: embedding}\n"
            "  place: cpu:0\n"
            "- match: {layers: 0-3}\n"
            "  place: cpu:0\n"
            "- match: {role: [norm, lm_head]}\n"
            "  place: cpu:1\n"
            "- match: {layers: 4-7}\n"
            "  place: cpu:1\n");
  ExpectRoundTrip(modules, devices);
}

TEST_F(RulesTextTest, AnyPlacementReadsBack) {
  const auto devices = Devices(3);
  auto modules = Auto(devices);
  for (int round = 0; round < 50; ++round) {
    for (size_t i = 0; i < modules.size(); ++i) {
      modules[i].device = absl::StrCat("cpu:", (i * i * 7 + i * round + round * round) % 3);
    }
    ExpectRoundTrip(modules, devices);
    if (HasFailure()) return;
  }
}

TEST_F(RulesTextTest, SharedRowsReadBack) {
  const auto devices = Devices(2);
  const RuleSet rules = ParseRules(
                            "- {match: {layers: 0-2}, place: cpu:1}\n"
                            "- {match: {}, split: {cpu:0: 3, cpu:1: 1.5}, by: rows}\n",
                            "r.yaml")
                            .value();
  const auto modules = Place(config_, *file_, &rules, devices, shape_).modules;
  EXPECT_EQ(RulesText(modules),
            "- match: {role: embedding}\n"
            "  place: cpu:0\n"
            "- match: {layers: 0-2}\n"
            "  place: cpu:1\n"
            "- match: {role: [norm, lm_head]}\n"
            "  split: {cpu:0: 3, cpu:1: 1.5}\n"
            "  by: rows\n"
            "- match: {layers: 3-7}\n"
            "  split: {cpu:0: 3, cpu:1: 1.5}\n"
            "  by: rows\n");
  ExpectRoundTrip(modules, devices);
}

TEST_F(RulesTextTest, LayersOfMixturesReadBack) {
  testing::TinyLlamaOptions options;
  options.experts = 4;
  Open(options);
  for (const auto& specs : {std::vector<std::string>{"cuda:0:24GiB", "cpu:0:64GiB"},
                            std::vector<std::string>{"cpu:0:64GiB", "cpu:1:64GiB"}}) {
    const auto devices = ParseDeviceSpecs(specs).value();
    ExpectRoundTrip(Auto(devices), devices);
  }
}

}  // namespace
}  // namespace dovetail::coordinator
