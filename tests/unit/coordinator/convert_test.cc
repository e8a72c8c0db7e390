// Other programs' placements in our short form, and the scenarios of rules/.
#include "coordinator/placement/ktransformers/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "coordinator/placement/ktransformers/builtin_tree.h"
#include "coordinator/placement/ktransformers/lint.h"
#include "coordinator/placement/ktransformers/short_rules.h"
#include "coordinator/placement/rule_set.h"
#include "tests/unit/coordinator/ktransformers_golden.h"

namespace dovetail::coordinator::ktransformers {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kV3 =
    R"({"model_type": "deepseek_v3", "num_hidden_layers": 61, "first_k_dense_replace": 3,
        "n_routed_experts": 256, "n_shared_experts": 1, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "rope_scaling": {"type": "yarn"}})";

struct Model {
  TreeShape shape;
  ModuleTree tree;
  DeviceMap no_map;
  explicit Model(const std::string& config)
      : shape(ShapeFromHuggingFace(config, "config.json").value()), tree(BuildTree(shape)) {}
  ConvertTarget target() const { return {shape, tree, no_map, nullptr}; }
  std::vector<RolePlace> Places(const RuleFile& file) const {
    const RuleMap map = MapModules(tree, file);
    return RolesOf(shape, tree, DevicesBy(file, map, no_map), nullptr);
  }
};

// Whether a rule of our form fits a role of a layer, as RuleSet's rules fit the ops of a model.
bool Fits(const coordinator::Rule& rule, const RolePlace& place) {
  if (!rule.layers.empty() && !Contains(rule.layers, place.layer)) return false;
  return rule.roles.empty() || std::count(rule.roles.begin(), rule.roles.end(), place.role) > 0;
}

// Where our rules put these roles.
std::vector<RolePlace> Apply(const std::string& text, std::vector<RolePlace> places) {
  const RuleSet rules = ParseRules(text, "short.yaml").value();
  for (RolePlace& place : places) {
    place.device = "nowhere";
    for (const coordinator::Rule& rule : rules.rules) {
      if (!Fits(rule, place)) continue;
      place.device = rule.shares[0].device == "cpu:*" ? "cpu" : rule.shares[0].device;
      break;
    }
  }
  return places;
}

TEST(Convert, EveryShippedFileGivesTheSamePlacementInFarFewerLines) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  int num_files = 0;
  for (const GoldenMap& golden : GoldenMapsIf([](const std::string& path) {
         return !absl::StrContains(path, "Qwen3Next") && !absl::StrContains(path, "Smallthinker");
       })) {
    SCOPED_TRACE(golden.path);
    const Model model(golden.json["config"].dump());
    const RuleFile file = ParseRuleFile(golden.rules_text, golden.rule_file).value();
    const Converted converted = ConvertRules(file, model.target());
    ASSERT_FALSE(HasErrors(converted.diagnostics));
    if (absl::StrContains(converted.text, "npu") || absl::StrContains(converted.text, "xpu")) {
      continue;  // our form knows no such devices
    }
    const std::vector<RolePlace> places = model.Places(file);
    EXPECT_EQ(Apply(converted.text, places), places) << converted.text;
    ++num_files;
  }
  EXPECT_GT(num_files, 55);
}

TEST(Convert, EightGpusAreADozenRules) {
  DT_REQUIRE_DATA(path, "placement/ktransformers/ktransformers/DeepSeek-V3-Chat-multi-gpu-8.yaml");
  const Model model(kV3);
  const RuleFile file = ParseRuleFile(ReadData(path), "eight.yaml").value();
  const Converted converted = ConvertRules(file, model.target());
  const RuleSet rules = ParseRules(converted.text, "short.yaml").value();
  EXPECT_LE(rules.rules.size(), 12u) << converted.text;
  const std::vector<RolePlace> places = model.Places(file);
  EXPECT_EQ(Apply(converted.text, places), places) << converted.text;
}

TEST(Convert, SaysWhatTheShortFormCannot) {
  const Model model(kV3);
  const RuleFile file =
      ParseRuleFile(
          "- match: {name: o_proj}\n  replace: {class: default, kwargs: {generate_device: cpu}}\n"
          "- match: {name: ''}\n  replace: {class: default, kwargs: {generate_device: cuda}}\n",
          "r.yaml")
          .value();
  const Converted converted = ConvertRules(file, model.target());
  ASSERT_EQ(converted.diagnostics.size(), 1u);
  EXPECT_EQ(FormatDiagnostic(converted.diagnostics[0]),
            "r.yaml: warning: model.layers.0-60.self_attn.o_proj would be on cpu, the rest of the "
            "same part on cuda:0, which has most of it and takes all of it [split-module]");
  EXPECT_EQ(converted.text,
            "# From r.yaml, for deepseek_v3 with 61 layers.\n- match: {}\n  place: cuda:0\n");
}

TEST(Convert, Overrides) {
  const Model model(kV3);
  const std::string arguments[] = {"blk\\.([3-9])\\.ffn_.*exps=CUDA1", "exps=CPU"};
  EXPECT_EQ(ConvertOverrides(arguments, model.target()).text,
            "# From --override-tensor blk\\.([3-9])\\.ffn_.*exps=CUDA1 exps=CPU\n"
            "- match: {layers: 10-60, role: experts}\n  place: cpu:*\n"
            "- match: {layers: 3-9, role: experts}\n  place: cuda:1\n"
            "- match: {}\n  place: cuda:*\n");
}

// --- rules/ ---

std::string RepositoryFile(const std::string& name) {
  const char* source = std::getenv("DOVETAIL_SOURCE");
  return testing::ReadFileOrDie(absl::StrCat(source == nullptr ? "." : source, "/rules/", name));
}

// "device: role layers" of a placement.
std::vector<std::string> Describe(const std::vector<RolePlace>& places) {
  std::map<std::string, std::map<Role, std::vector<int>>> devices;
  for (const RolePlace& place : places) devices[place.device][place.role].push_back(place.layer);
  std::vector<std::string> lines;
  for (const auto& [device, roles] : devices) {
    std::vector<std::string> parts;
    for (const auto& [role, layers] : roles) {
      parts.push_back(absl::StrCat(
          RoleName(role), layers[0] < 0 ? "" : absl::StrCat(" ", FormatRanges(ToRanges(layers)))));
    }
    lines.push_back(absl::StrCat(device, ": ", absl::StrJoin(parts, ", ")));
  }
  return lines;
}

// Both forms of a scenario put everything where `expected` says, and lint has nothing to warn of.
void TestScenario(const std::string& name, const std::string& config,
                  const std::vector<std::string>& expected) {
  const Model model(config);
  const RuleFile file = ParseRuleFile(RepositoryFile(name + ".ktransformers.yaml"), name).value();
  const std::vector<RolePlace> places = model.Places(file);
  EXPECT_THAT(Describe(places), ::testing::ElementsAreArray(expected));
  EXPECT_EQ(Apply(RepositoryFile(name + ".yaml"), places), places);
  const RuleMap map = MapModules(model.tree, file);
  for (const Diagnostic& d : Lint({file, model.tree, map, model.no_map, {}, 0, nullptr})) {
    EXPECT_EQ(d.severity, Severity::kNote) << FormatDiagnostic(d);
  }
}

TEST(Scenario, DeepSeekR1OnOneCard) {
  TestScenario("deepseek-r1-one-card", kV3,
               {"cpu: embedding, attention 0-29, mlp 0-2, router 3-29, experts 3-60, "
                "shared_experts 3-29",
                "cuda:0: attention 30-60, router 30-60, shared_experts 30-60, norm, lm_head"});
}

TEST(Scenario, DeepSeekV25OnThreeCards) {
  TestScenario("deepseek-v2.5-three-cards",
               R"({"model_type": "deepseek_v2", "num_hidden_layers": 60, "first_k_dense_replace": 1,
          "n_routed_experts": 160, "n_shared_experts": 2, "kv_lora_rank": 512,
          "q_lora_rank": 1536, "rope_scaling": {"type": "yarn"}})",
               {"cpu: embedding, experts 1-59",
                "cuda:0: attention 0-19, mlp 0, router 1-19, shared_experts 1-19",
                "cuda:1: attention 20-39, router 20-39, shared_experts 20-39",
                "cuda:2: attention 40-59, router 40-59, shared_experts 40-59, norm, lm_head"});
}

TEST(Scenario, T4) {
  TestScenario("t4",
               R"({"model_type": "deepseek_v2", "num_hidden_layers": 27, "first_k_dense_replace": 1,
          "n_routed_experts": 64, "n_shared_experts": 2, "kv_lora_rank": 512,
          "rope_scaling": {"type": "yarn"}})",
               {"cpu: embedding, experts 1-26",
                "cuda:0: attention 0-26, mlp 0, router 1-26, shared_experts 1-26, norm, lm_head"});
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
