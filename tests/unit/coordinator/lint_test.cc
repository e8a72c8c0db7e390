// What is said about rule files: the shipped ones with what is surprising in them, those that
// people publish, and one test for each diagnostic.
#include "coordinator/placement/ktransformers/lint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "coordinator/placement/device_spec.h"
#include "coordinator/placement/ktransformers/builtin_tree.h"
#include "coordinator/placement/ktransformers/lint_file.h"
#include "tests/unit/coordinator/ktransformers_golden.h"

namespace dovetail::coordinator::ktransformers {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kV3 =
    R"({"model_type": "deepseek_v3", "num_hidden_layers": 61, "first_k_dense_replace": 3,
        "hidden_size": 7168, "n_routed_experts": 256, "n_shared_experts": 1, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "rope_scaling": {"type": "yarn"}})";
constexpr const char* kV2Point5 =
    R"({"model_type": "deepseek_v2", "num_hidden_layers": 60, "first_k_dense_replace": 1,
        "hidden_size": 5120, "n_routed_experts": 160, "n_shared_experts": 2, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "rope_scaling": {"type": "yarn"}})";

ModuleTree TreeOf(const std::string& config) {
  return BuildTree(ShapeFromHuggingFace(config, "config.json").value());
}

std::vector<Diagnostic> LintOn(const std::string& text, const ModuleTree& tree,
                               const std::string& file = "r.yaml",
                               const std::vector<DeviceInfo>& devices = {}) {
  const DeviceMap no_map;
  return LintText(text, file, {&tree, no_map, devices, 7168, nullptr});
}

// Without notes, as people see it.
std::vector<std::string> Warnings(const std::vector<Diagnostic>& diagnostics) {
  std::vector<std::string> shown;
  for (const Diagnostic& d : diagnostics) {
    if (d.severity != Severity::kNote) shown.push_back(FormatDiagnostic(d));
  }
  return shown;
}

std::vector<std::string> OfCode(const std::vector<Diagnostic>& diagnostics,
                                const std::string& code) {
  std::vector<std::string> shown;
  for (const Diagnostic& d : diagnostics) {
    if (d.code == code) shown.push_back(FormatDiagnostic(d));
  }
  return shown;
}

// --- The shipped files. ---

TEST(LintShipped, NamesTheRulesThatNeverMatchAndNoOthers) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  for (const GoldenMap& golden : GoldenMaps()) {
    SCOPED_TRACE(golden.path);
    const ModuleTree tree = ReadModuleTree(golden.tree_text, golden.path).value();
    const RuleFile file = ParseRuleFile(golden.rules_text, golden.rule_file).value();
    std::set<int> lines;
    for (const Diagnostic& d : LintOn(golden.rules_text, tree, golden.rule_file)) {
      EXPECT_NE(d.severity, Severity::kError) << FormatDiagnostic(d);
      if (d.code == "dead-rule" || d.code == "shadowed-rule") lines.insert(d.line);
    }
    std::set<int> expected;
    for (const auto& index : golden.json["rules_never_matched"]) {
      expected.insert(file.rules[index.get<int>()].place.line);
    }
    EXPECT_EQ(lines, expected);
  }
}

TEST(LintShipped, SaysWhatIsUnmatchedExactlyWhereSomethingIs) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  for (const GoldenMap& golden : GoldenMaps()) {
    SCOPED_TRACE(golden.path);
    const ModuleTree tree = ReadModuleTree(golden.tree_text, golden.path).value();
    bool unmatched = false;
    for (const Module& module : tree.modules) {
      const auto& modules = golden.json["modules"];
      unmatched |= module.owns_weights && modules.contains(module.name) &&
                   modules[module.name]["rule_index"].is_null();
    }
    const auto said = LintOn(golden.rules_text, tree, golden.rule_file);
    EXPECT_EQ(!OfCode(said, "unmatched").empty() || !OfCode(said, "experts-on-gpu").empty(),
              unmatched);
  }
}

// The diagnostics of one shipped file on its model.
std::vector<Diagnostic> Shipped(const std::string& name) {
  for (const GoldenMap& golden : GoldenMapsIf(
           [&](const std::string& path) { return absl::StrContains(path, name + ".json"); })) {
    return LintOn(golden.rules_text, ReadModuleTree(golden.tree_text, golden.path).value(),
                  golden.rule_file);
  }
  return {};
}

TEST(LintShipped, RulesBelowExpertsThatTheirOpOwns) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  EXPECT_THAT(OfCode(Shipped("ktransformers/Qwen3Moe-serve.yaml"), "dead-rule"),
              ElementsAre(AllOf(HasSubstr("rule 9 (line "),
                                HasSubstr("never matches: what it names, such as "
                                          "`model.layers.0.mlp.experts.0`, lies below "
                                          "`model.layers.0.mlp.experts`, where rule "),
                                HasSubstr("says `recursive: False`"))));
}

TEST(LintShipped, RoutersThatWouldBeQuantised) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  EXPECT_THAT(OfCode(Shipped("ktransformers/Qwen3Moe-serve.yaml"), "router-quantised"),
              ElementsAre(HasSubstr("warning: `KLinearMarlin` would make the router "
                                    "model.layers.0-47.mlp.gate 4-bit; Dovetail keeps it as the "
                                    "file has it [router-quantised]")));
}

TEST(LintShipped, ExpertsLeftOnTheDefaultDevice) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  const auto said = Shipped("npu/Qwen3-Chat-300IA2-npu-serve.yaml");
  EXPECT_THAT(OfCode(said, "experts-on-gpu"),
              ElementsAre(HasSubstr("all experts of layers 0-47 (48 layers) go to cuda:0, because "
                                    "no rule matches them")));
  EXPECT_THAT(OfCode(said, "shadowed-rule"),
              ElementsAre(AllOf(HasSubstr("rule 3 (line "), HasSubstr("by the earlier rule 2 ("))));
}

TEST(LintShipped, ClassesOfAnotherModel) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  DT_REQUIRE_DATA(path, "placement/ktransformers/ktransformers/DeepSeek-V2-Lite-Chat-gpu-cpu.yaml");
  const auto said = LintOn(
      ReadData(path),
      TreeOf(R"({"model_type": "deepseek_v2", "num_hidden_layers": 27, "first_k_dense_replace": 1,
          "n_routed_experts": 64, "n_shared_experts": 2, "kv_lora_rank": 512,
          "rope_scaling": {"type": "yarn"}})"));
  EXPECT_THAT(OfCode(said, "dead-rule"),
              ElementsAre(AllOf(HasSubstr("rule 7 (line 80)"),
                                HasSubstr("no module is a "
                                          "`ktransformers.models.modeling_deepseek_v3.MoEGate`; "
                                          "this model has "
                                          "`ktransformers.models.modeling_deepseek.MoEGate`")),
                          HasSubstr("rule 8 (line 89)")));
}

TEST(LintShipped, OutputAwayFromItsNorm) {
  DT_REQUIRE_DATA(path,
                  "placement/ktransformers/ktransformers/DeepSeek-V3-Chat-multi-gpu-marlin.yaml");
  EXPECT_THAT(OfCode(LintOn(ReadData(path), TreeOf(kV3)), "hop"),
              ElementsAre("r.yaml:161:24: warning: lm_head is on cuda:0 while model.norm is on "
                          "cuda:1: one more hop of 28.0 KiB for each token [hop]"));
}

// --- As people publish them. ---

TEST(LintArticle, HybridInThePrintedOrder) {
  DT_REQUIRE_DATA(path, "placement/articles/hybrid-r1.yaml");
  const auto said = LintOn(ReadData(path), TreeOf(kV3));
  EXPECT_THAT(
      OfCode(said, "shadowed-rule"),
      ElementsAre(
          "r.yaml:22:3: warning: rule 3 (line 22) never matches: all 30 modules that it names are "
          "taken by the earlier rule 0 (line 1) [shadowed-rule]",
          "r.yaml:30:3: warning: rule 4 (line 30) never matches: all 31 modules that it names are "
          "taken by the earlier rule 1 (line 8) [shadowed-rule]",
          "r.yaml:37:3: warning: rule 5 (line 37) never matches: all 27 modules that it names are "
          "taken by the earlier rule 0 (line 1) [shadowed-rule]"));
  EXPECT_THAT(OfCode(said, "better-order"),
              ElementsAre("r.yaml:22:3: note: in the order 3, 5, 0, 4, 1, 2 every rule matches (0 "
                          "is the first of the file); put narrow rules before broad ones "
                          "[better-order]"));
  EXPECT_THAT(OfCode(said, "experts-on-gpu"),
              ElementsAre(AllOf(HasSubstr("r.yaml:8:3: warning: all experts of layers 30-60 (31 "
                                          "layers) go to cuda:0 by rule 1 (line 8), which does "
                                          "not name experts"))));
  EXPECT_THAT(OfCode(said, "short-class"),
              Contains(HasSubstr("`DeepseekV3RotaryEmbedding` is a class without its module")));
}

TEST(LintArticle, ThreeCardsForgetOneDigitLayers) {
  DT_REQUIRE_DATA(path, "placement/articles/v2.5-three-cards.yaml");
  const std::string three_cards = ReadData(path) + R"yaml(
- match: {name: "^model\\.layers\\.([2-3][0-9])\\."}
  replace: {class: default, kwargs: {generate_device: "cuda:1", prefill_device: "cuda:1"}}
- match: {name: "(^model\\.layers\\.([4-5][0-9])\\.)|(model.norm)|(lm_head)"
}
  replace: {class: default, kwargs: {generate_device: "cuda:2", prefill_device: "cuda:2"}}
)yaml";
  EXPECT_THAT(OfCode(LintOn(three_cards, TreeOf(kV2Point5)), "layer-hole"),
              ElementsAre("r.yaml:2:11: warning: layers 0-9 are matched by no rule and fall to "
                          "cuda:0; rule 0 (line 1) covers layers 10-19: its pattern "
                          "`^model\\.layers\\.([0-1][0-9])\\.` wants two digits [layer-hole]"));
}

TEST(LintArticle, T4CannotRunMarlin) {
  const std::vector<DeviceInfo> devices = {ParseDeviceSpec("cpu:0:64GiB").value(),
                                           ParseDeviceSpec("cuda:0:16GiB:sm75").value()};
  const auto said = LintOn(R"(- match: {class: torch.nn.Linear}
  replace:
    class: ktransformers.operators.linear.KTransformersLinear
    kwargs: {generate_device: cuda, prefill_device: cuda, generate_op: KLinearMarlin}
)",
                           TreeOf(kV3), "r.yaml", devices);
  EXPECT_THAT(OfCode(said, "op-fallback"),
              ElementsAre("r.yaml:4:72: warning: `KLinearMarlin` needs compute capability 8.0 and "
                          "cuda:0 has 7.5; Dovetail's own kernels run there instead, with the "
                          "weights as the file has them [op-fallback]"));
}

TEST(LintArticle, TextThatLostItsIndentation) {
  const std::map<std::string, std::string> expected = {
      {"hybrid-r1-as-printed-1.txt", "r.yaml:2:1: error: `name:` stands where it cannot"},
      {"hybrid-r1-as-printed-2.txt", "r.yaml:1:10: error: `name:` stands where it cannot"},
      {"hybrid-r1-as-printed-3.txt", "r.yaml:2:1: error: `name:` stands where it cannot"},
      {"t4-linear-torch-as-printed.txt", "r.yaml:2:1: error: `name:` stands where it cannot"},
      {"v2.5-three-cards-as-printed.txt", "r.yaml:2:1: error: `name:` stands where it cannot"}};
  for (const auto& [name, message] : expected) {
    DT_REQUIRE_DATA(path, "placement/articles/" + name);
    const auto said = LintOn(ReadData(path), TreeOf(kV3));
    ASSERT_EQ(said.size(), 1u) << name;
    EXPECT_EQ(said[0].code, "lost-indentation");
    EXPECT_THAT(FormatDiagnostic(said[0]), HasSubstr(message));
    // The probable form is a file that can be read.
    const size_t form = said[0].message.find("\n- match:");
    ASSERT_NE(form, std::string::npos) << said[0].message;
    EXPECT_TRUE(ParseRuleFile(said[0].message.substr(form + 1), "restored").ok());
  }
}

// --- One by one. ---

constexpr const char* kTiny =
    R"({"model_type": "deepseek_v3", "num_hidden_layers": 4, "first_k_dense_replace": 1,
        "n_routed_experts": 3, "n_shared_experts": 1, "kv_lora_rank": 4, "q_lora_rank": 4})";

std::vector<std::string> WarningsOf(const std::string& text) {
  return Warnings(LintOn(text, TreeOf(kTiny)));
}

std::vector<std::string> Of(const std::string& code, const std::string& text) {
  return OfCode(LintOn(text, TreeOf(kTiny)), code);
}

std::string Rule(const std::string& match, const std::string& kwargs,
                 const std::string& op = "default") {
  return absl::StrCat("- match: {", match, "}\n  replace: {class: ", op, ", kwargs: {", kwargs,
                      "}}\n");
}

TEST(Lint, ARuleForAllHasNothingToSay) {
  EXPECT_THAT(WarningsOf(Rule("name: ''", "generate_device: cpu, prefill_device: cpu")), IsEmpty());
}

TEST(Lint, MistakesInTheText) {
  EXPECT_THAT(WarningsOf("- match: [\n"),
              ElementsAre(HasSubstr("r.yaml:2:1: error: not valid YAML")));
  EXPECT_THAT(WarningsOf(Rule("name: ''", "generate_device: cpu") + Rule("name: 'a('", "")),
              Contains("r.yaml:3:17: error: bad regular expression `a(`: missing closing "
                       "parenthesis at offset 2 [bad-regex]"));
  EXPECT_THAT(WarningsOf("- match: {layers: 3}\n  place: nowhere\n"),
              Contains(HasSubstr("r.yaml:2:10: error: ")));
}

TEST(Lint, DeadRules) {
  const std::string all = Rule("name: ''", "generate_device: cpu");
  EXPECT_THAT(Of("dead-rule", Rule("name: nothing", "generate_device: cpu") + all),
              ElementsAre("r.yaml:1:3: warning: rule 0 (line 1) never matches: no module's name "
                          "fits `nothing` [dead-rule]"));
  EXPECT_THAT(Of("dead-rule", Rule("class: torch.nn.Linaer", "generate_device: cpu") + all),
              ElementsAre(HasSubstr("no module is a `torch.nn.Linaer`")));
  EXPECT_THAT(
      Of("dead-rule", Rule("class: torch.nn.Linear, name: norm$", "") + all),
      ElementsAre(HasSubstr("17 modules fit its name and 42 its class, but none fits both")));
}

TEST(Lint, LayersThatTwoRulesName) {
  EXPECT_THAT(
      Of("layer-overlap",
         Rule("name: '^model\\.layers\\.[0-2]\\.'", "generate_device: 'cuda:0'") +
             Rule("name: '^model\\.layers\\.[2-3]\\.'", "generate_device: 'cuda:1'")),
      ElementsAre("r.yaml:3:17: warning: rule 1 (line 3) names layer 2, which the earlier rule 0 "
                  "(line 1) has put on cuda:0 [layer-overlap]"));
}

TEST(Lint, ModulesThatNoRuleMatches) {
  EXPECT_THAT(
      Of("unmatched", Rule("class: torch.nn.Linear", "generate_device: 'cuda:1'")),
      ElementsAre(AllOf(HasSubstr("r.yaml: warning: no rule matches "),
                        HasSubstr("model.layers.0-3.{self_attn.q_a_layernorm, "),
                        HasSubstr("model.embed_tokens, model.norm; they go to cuda:0, away from "
                                  "what they belong to [unmatched]"))));
  EXPECT_THAT(Of("unmatched", Rule("class: torch.nn.Linear", "generate_device: cuda")),
              ElementsAre(HasSubstr("r.yaml: note: no rule matches ")));
}

TEST(Lint, DevicesAndOps) {
  EXPECT_THAT(
      Of("unknown-device", Rule("name: ''", "generate_device: gpu")),
      ElementsAre("r.yaml:2:55: error: `generate_device` must be `cpu`, `cuda` or `cuda:N`, "
                  "got `gpu`; did you mean `cuda`? [unknown-device]"));
  EXPECT_THAT(Of("unsupported-device", Rule("name: ''", "generate_device: npu")),
              ElementsAre(HasSubstr("note: there are no workers for `npu` devices; --map "
                                    "npu:*=cuda:0 or =cpu:0 takes another")));
  EXPECT_THAT(Of("no-device", Rule("name: ''", "")),
              ElementsAre(HasSubstr("error: rule 0 (line 1) gives no `generate_device` to ")));
  EXPECT_THAT(Of("unknown-op", Rule("name: ''", "generate_device: cpu, generate_op: KLinearTroch")),
              ElementsAre(HasSubstr("`generate_op` names no operator: `KLinearTroch`; did you mean "
                                    "`KLinearTorch`? [unknown-op]")));
  EXPECT_THAT(Of("op-device", Rule("name: ''", "generate_device: cpu, generate_op: KLinearMarlin")),
              ElementsAre(HasSubstr("`KLinearMarlin` does not run on `cpu`")));
  EXPECT_THAT(Of("own-implementation",
                 Rule("name: ''", "generate_device: cpu", "ktransformers.operators.gate.KMoEGate")),
              ElementsAre(HasSubstr("note: `ktransformers.operators.gate.KMoEGate` chooses an "
                                    "implementation in Python")));
  EXPECT_THAT(Of("unknown-class", Rule("name: ''", "generate_device: cpu", "my.own.Op")),
              ElementsAre(HasSubstr("`my.own.Op` is none of KTransformers' operators")));
  EXPECT_THAT(Of("prefill-device", Rule("name: ''", "generate_device: cpu, prefill_device: cuda")),
              ElementsAre(HasSubstr("note: prefill of steps that `stream_experts` chooses streams "
                                    "these weights to cuda:0; without it prefill runs on cpu")));
}

TEST(Lint, WhereThingsMove) {
  EXPECT_THAT(Of("transfer-map",
                 Rule("name: '^model$'", "transfer_map: {2: 'cuda:1', 9: 'cuda:0', x: cpu}") +
                     Rule("name: ''", "generate_device: 'cuda:0'")),
              ElementsAre(HasSubstr("`transfer_map` moves to cuda:1 before layer 2, whose "
                                    "attention is on cuda:0"),
                          HasSubstr("`transfer_map` names layer 9, which the model does not have"),
                          HasSubstr("`transfer_map` has `x`, which is no layer")));
  EXPECT_THAT(
      Of("out-device", Rule("name: 'experts$'", "generate_device: cpu, out_device: 'cuda:1'",
                            "ktransformers.operators.experts.KTransformersExperts") +
                           Rule("name: ''", "generate_device: 'cuda:0'")),
      ElementsAre(HasSubstr("`out_device` is cuda:1, but what reads the result is on cuda:0")));
}

TEST(Lint, WithoutAModelOnlyTheTextIsJudged) {
  const DeviceMap no_map;
  EXPECT_THAT(Warnings(LintText(Rule("name: nothing, nmae: x", "generate_device: cpu"), "r.yaml",
                                {nullptr, no_map, {}, 0, nullptr})),
              ElementsAre(HasSubstr("unknown key `nmae`")));
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
