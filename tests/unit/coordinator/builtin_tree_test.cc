// The built-in trees against the models that KTransformers itself built.
#include "coordinator/placement/ktransformers/builtin_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "coordinator/placement/ktransformers/rule_map.h"
#include "model/model_config.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/unit/coordinator/ktransformers_golden.h"

namespace dovetail::coordinator::ktransformers {
namespace {

using ::testing::HasSubstr;

// Models without a built-in tree.
bool IsBuiltIn(const std::string& path) {
  return !absl::StrContains(path, "Qwen3Next") && !absl::StrContains(path, "Smallthinker");
}

nlohmann::json Modules(const RuleMap& map, const RuleFile& file) {
  return nlohmann::json::parse(RuleMapJson(map, file))["modules"];
}

TEST(BuiltinTree, GivesTheSameDevicesAndOpsToEveryModuleThatOwnsWeights) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  std::set<std::string> models;
  int num_modules = 0;
  for (const GoldenMap& golden : GoldenMapsIf(IsBuiltIn)) {
    SCOPED_TRACE(golden.path);
    const auto shape = ShapeFromHuggingFace(golden.json["config"].dump(), "config.json");
    ASSERT_TRUE(shape.ok()) << shape.status();
    const auto file = ParseRuleFile(golden.rules_text, golden.rule_file);
    ASSERT_TRUE(file.ok());
    const RuleMap map = MapModules(BuildTree(*shape), *file);
    ASSERT_TRUE(map.errors.empty());
    const nlohmann::json got = Modules(map, *file);
    const auto real = ReadModuleTree(golden.tree_text, golden.path);
    ASSERT_TRUE(real.ok());
    for (const Module& module : real->modules) {
      const auto& want = golden.json["modules"];
      if (!module.owns_weights || want.find(module.name) == want.end()) continue;
      if (absl::StrContains(golden.path, "npu/Qwen3") && module.name == "model.norm") continue;
      ASSERT_TRUE(got.contains(module.name)) << module.name;
      for (const char* field :
           {"op", "generate_device", "prefill_device", "generate_op", "prefill_op"}) {
        ASSERT_EQ(got[module.name][field], want[module.name][field]) << module.name << field;
      }
      ++num_modules;
    }
    models.insert(golden.json["model"].get<std::string>());
  }
  EXPECT_EQ(models.size(), 13u);
  EXPECT_GT(num_modules, 30000);
}

TEST(BuiltinTree, HasTheRealModulesAndNoOthers) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  std::set<std::string> seen;
  for (const GoldenMap& golden : GoldenMapsIf(IsBuiltIn)) {
    if (!seen.insert(golden.json["model"].get<std::string>()).second) continue;
    SCOPED_TRACE(golden.path);
    const ModuleTree tree =
        BuildTree(ShapeFromHuggingFace(golden.json["config"].dump(), "config.json").value());
    const ModuleTree real = ReadModuleTree(golden.tree_text, golden.path).value();
    std::set<std::string> names;
    std::set<std::string> real_names;
    for (const Module& module : tree.modules) names.insert(module.name);
    for (const Module& module : real.modules) {
      if (module.name != "cache" && module.owns_weights) real_names.insert(module.name);
    }
    for (const std::string& name : real_names) EXPECT_TRUE(names.count(name)) << name;
    for (const Module& module : tree.modules) {
      EXPECT_TRUE(!module.owns_weights || real_names.count(module.name)) << module.name;
    }
  }
}

TEST(BuiltinTree, OwnsEveryTensorOfTheRealModels) {
  DT_REQUIRE_DATA(readme, "placement/golden/README.md");
  for (const GoldenMap& golden : GoldenMapsIf(IsBuiltIn)) {
    const TreeShape shape =
        ShapeFromHuggingFace(golden.json["config"].dump(), "config.json").value();
    const nlohmann::json tree = nlohmann::json::parse(golden.tree_text);
    for (const auto& [name, module] : tree["modules"].items()) {
      if (!module.contains("params") || absl::StrContains(name, ".experts.")) continue;
      for (const auto& [param, tensor] : module["params"].items()) {
        const auto gguf = tensor.get<std::string>();
        // Names that KTransformers' table does not translate.
        if (param == "e_score_correction_bias" || absl::StrContains(gguf, "self_attn")) continue;
        ASSERT_EQ(ModuleOfTensor(shape, gguf), name);
      }
    }
  }
}

// Families that KTransformers has no rules for: the modules of a layer as transformers names them,
// and every tensor of a converted model in one of them.
struct Published {
  const char* family;
  const char* layer;  // what owns weights
};

class PublishedTree : public ::testing::TestWithParam<Published> {};

TEST_P(PublishedTree, HasTheModulesAndOwnsTheTensors) {
  DT_REQUIRE_DATA(path, absl::StrCat("golden/", GetParam().family, "/model-bf16.gguf"));
  ASSERT_OK_AND_ASSIGN(const model::ModelFile opened, model::OpenModelFile(path));
  ASSERT_OK_AND_ASSIGN(const TreeShape shape, ShapeFromModel(opened.config));
  const ModuleTree tree = BuildTree(shape);
  std::set<std::string> owners;
  std::string first_layer;
  for (const Module& module : tree.modules) {
    if (!module.owns_weights) continue;
    owners.insert(module.name);
    absl::string_view name = module.name;
    if (absl::ConsumePrefix(&name, "model.layers.0.")) absl::StrAppend(&first_layer, name, " ");
  }
  EXPECT_EQ(first_layer, GetParam().layer);
  std::set<std::string> used = {"lm_head"};  // tied to the embedding in some
  for (const model::GgufTensor& tensor : opened.file->tensors()) {
    const std::string owner = ModuleOfTensor(shape, tensor.name);
    EXPECT_TRUE(owners.count(owner)) << tensor.name << " is of `" << owner << "`";
    used.insert(owner);
  }
  EXPECT_EQ(used, owners);
}

INSTANTIATE_TEST_SUITE_P(
    Families, PublishedTree,
    ::testing::Values(
        Published{"qwen2",
                  "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
                  "mlp.gate_proj mlp.up_proj mlp.down_proj input_layernorm "
                  "post_attention_layernorm "},
        Published{"qwen3",
                  "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
                  "self_attn.q_norm self_attn.k_norm mlp.gate_proj mlp.up_proj mlp.down_proj "
                  "input_layernorm post_attention_layernorm "},
        Published{"gemma3",
                  "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
                  "self_attn.q_norm self_attn.k_norm mlp.gate_proj mlp.up_proj mlp.down_proj "
                  "input_layernorm post_attention_layernorm pre_feedforward_layernorm "
                  "post_feedforward_layernorm "},
        // The sinks are a parameter of the attention itself.
        Published{"gpt-oss",
                  "self_attn self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
                  "mlp.router mlp.experts input_layernorm post_attention_layernorm "},
        Published{"minimax-m2",
                  "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
                  "self_attn.q_norm self_attn.k_norm block_sparse_moe.gate "
                  "block_sparse_moe.experts.0.w1 block_sparse_moe.experts.0.w2 "
                  "block_sparse_moe.experts.0.w3 input_layernorm post_attention_layernorm "}),
    [](const auto& info) {
      std::string name = info.param.family;
      name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
      return name;
    });

TEST(TreeShape, ExpertsLieInOneTensorThatTheFirstStandsFor) {
  const TreeShape v3 =
      ShapeFromHuggingFace(
          R"({"model_type": "deepseek_v3", "num_hidden_layers": 4, "first_k_dense_replace": 1,
          "n_routed_experts": 8, "n_shared_experts": 1, "kv_lora_rank": 4, "q_lora_rank": 4})",
          "c")
          .value();
  EXPECT_EQ(ModuleOfTensor(v3, "blk.2.ffn_down_exps.weight"),
            "model.layers.2.mlp.experts.0.down_proj");
  EXPECT_EQ(ModuleOfTensor(v3, "blk.2.exp_probs_b.bias"), "model.layers.2.mlp.gate");
  EXPECT_EQ(ModuleOfTensor(v3, "rope_freqs.weight"), "");
  const TreeShape mixtral =
      ShapeFromHuggingFace(
          R"({"architectures": ["MixtralForCausalLM"], "num_hidden_layers": 2, "num_local_experts": 8})",
          "c")
          .value();
  EXPECT_EQ(ModuleOfTensor(mixtral, "blk.0.ffn_down_exps.weight"),
            "model.layers.0.block_sparse_moe.experts.0.w2");
  EXPECT_EQ(ModuleOfTensor(mixtral, "blk.0.ffn_up_exps.weight"),
            "model.layers.0.block_sparse_moe.experts.0.w3");
}

TEST(TreeShape, SaysWhatIsWrongWithAConfiguration) {
  const auto error = [](const std::string& json) {
    return std::string(ShapeFromHuggingFace(json, "c.json").status().message());
  };
  EXPECT_EQ(error("[1]"), "c.json: is not a model's configuration (JSON)");
  EXPECT_EQ(error("{}"),
            "c.json: `num_hidden_layers` must be a number from 1 to 10000, got nothing");
  EXPECT_THAT(error(R"({"model_type": "bert", "num_hidden_layers": 2})"),
              HasSubstr("there is no module tree for `bert`; known: deepseek_v2, "));
  EXPECT_THAT(error(R"({"num_hidden_layers": 1e9})"), HasSubstr("got 1000000000.0"));
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
