// What each family's file says, on the golden models; and what is refused.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "model/arch/registry.h"
#include "model/model_config.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::GgufWriter;
using ::dovetail::testing::MakeTinyLlama;
using ::dovetail::testing::StatusIs;
using ::dovetail::testing::TinyLlamaOptions;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<ModelConfig> LoadFile(const std::string& path) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return file.status();
  return LoadModelConfig(**file);
}

absl::StatusOr<ModelConfig> Load(const GgufWriter& writer) {
  const std::string path = ::testing::TempDir() + "/family_reader_test.gguf";
  writer.Write(path);
  return LoadFile(path);
}

std::vector<std::string> TensorsOf(const ModelConfig& config, const Op& op) {
  std::vector<std::string> names;
  for (const WeightSpec& spec : WeightsOf(config, op)) names.push_back(spec.tensor);
  return names;
}

#define LOAD_GOLDEN(config, family)                                          \
  DT_REQUIRE_DATA(path, std::string("golden/") + family "/model-bf16.gguf"); \
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadFile(path))

TEST(Families, Qwen2HasBiases) {
  LOAD_GOLDEN(config, "qwen2");
  EXPECT_EQ(config.rope_layout, RopeLayout::kHalves);
  EXPECT_THAT(TensorsOf(config, {OpKind::kAttention, 1}),
              ElementsAre("blk.1.attn_norm.weight", "blk.1.attn_q.weight", "blk.1.attn_q.bias",
                          "blk.1.attn_k.weight", "blk.1.attn_k.bias", "blk.1.attn_v.weight",
                          "blk.1.attn_v.bias", "blk.1.attn_output.weight"));
}

TEST(Families, Qwen3NormalisesHeads) {
  LOAD_GOLDEN(config, "qwen3");
  EXPECT_EQ(config.qk_norm, QkNorm::kPerHead);
  for (const WeightSpec& spec : WeightsOf(config, {OpKind::kAttention, 0})) {
    if (spec.role == WeightRole::kQNorm || spec.role == WeightRole::kKNorm) {
      EXPECT_EQ(spec.cols, config.head_dim);
    }
  }
}

TEST(Families, MixtralIsLlamaWithExperts) {
  LOAD_GOLDEN(config, "mixtral");
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.experts.count, 8);
  EXPECT_EQ(config.experts.num_used, 2);
  EXPECT_EQ(config.experts.intermediate_size, 128);
  EXPECT_TRUE(config.experts.normalise);
  EXPECT_EQ(config.experts.shared_intermediate_size, 0);
  EXPECT_THAT(TensorsOf(config, {OpKind::kRouter, 0}),
              ElementsAre("blk.0.ffn_norm.weight", "blk.0.ffn_gate_inp.weight"));
  EXPECT_THAT(TensorsOf(config, {OpKind::kExperts, 0, 0, 8}),
              ElementsAre("blk.0.ffn_norm.weight", "blk.0.ffn_gate_exps.weight",
                          "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight"));
}

TEST(Families, Qwen2MoeHasAGatedSharedExpert) {
  LOAD_GOLDEN(config, "qwen2moe");
  EXPECT_FALSE(config.experts.normalise);
  EXPECT_TRUE(config.experts.shared_gate);
  EXPECT_EQ(config.experts.shared_intermediate_size, 512);
  EXPECT_EQ(config.experts.intermediate_size, 128);
}

TEST(Families, Qwen3MoeHasNone) {
  LOAD_GOLDEN(config, "qwen3moe");
  EXPECT_TRUE(config.experts.normalise);
  EXPECT_EQ(config.experts.shared_intermediate_size, 0);
  EXPECT_EQ(config.qk_norm, QkNorm::kPerHead);
}

TEST(Families, Glm4MoeBeginsDenseAndKeepsTheLastBlockOut) {
  LOAD_GOLDEN(config, "glm4moe");
  EXPECT_FALSE(config.HasExperts(0));
  EXPECT_TRUE(config.HasExperts(1));
  EXPECT_EQ(config.experts.score, RouterScore::kSigmoid);
  EXPECT_EQ(config.experts.scale, 2.5f);
  EXPECT_EQ(config.experts.shared_intermediate_size, 128);
  EXPECT_EQ(config.rope_dim, 32);
  EXPECT_THAT(
      TensorsOf(config, {OpKind::kRouter, 1}),
      AllOf(Contains("blk.1.post_attention_norm.weight"), Contains("blk.1.exp_probs_b.bias")));
  EXPECT_THAT(
      TensorsOf(config, {OpKind::kSharedExperts, 1}),
      AllOf(Contains("blk.1.post_attention_norm.weight"), Contains("blk.1.ffn_up_shexp.weight")));

  DT_REQUIRE_DATA(nextn_path, "golden/glm4moe/model-bf16-nextn.gguf");
  ASSERT_OK_AND_ASSIGN(const ModelConfig nextn, LoadFile(nextn_path));
  EXPECT_EQ(nextn.num_hidden_layers, 2);
  EXPECT_EQ(nextn.num_nextn_layers, 1);
  EXPECT_EQ(OpsOf(nextn), OpsOf(config));
}

TEST(Families, MiniMaxM2NormalisesWholeRows) {
  LOAD_GOLDEN(config, "minimax-m2");
  EXPECT_EQ(config.qk_norm, QkNorm::kWholeRow);
  EXPECT_EQ(config.rope_dim, 32);
  EXPECT_TRUE(config.experts.choice_bias);
}

TEST(Families, Gemma3AlternatesWindows) {
  LOAD_GOLDEN(config, "gemma3");
  EXPECT_EQ(config.activation, Activation::kGelu);
  EXPECT_EQ(config.embedding_scale, 16.0f);
  EXPECT_TRUE(config.tie_word_embeddings);
  std::vector<bool> windows;
  for (int layer = 0; layer < 6; ++layer) windows.push_back(config.HasWindow(layer));
  EXPECT_THAT(windows, ElementsAre(true, true, true, true, true, false));
  EXPECT_EQ(config.sliding_window, 32);
  ASSERT_EQ(config.rope_inv_freq_local.size(), config.rope_inv_freq.size());
  EXPECT_LT(config.rope_inv_freq[1], config.rope_inv_freq_local[1]);
}

TEST(Families, GptOssHasSinksAndBiases) {
  LOAD_GOLDEN(config, "gpt-oss");
  EXPECT_TRUE(config.attention_sinks);
  EXPECT_EQ(config.experts.score, RouterScore::kSoftmaxOfChosen);
  EXPECT_TRUE(config.HasWindow(0));
  EXPECT_FALSE(config.HasWindow(1));
  EXPECT_THAT(TensorsOf(config, {OpKind::kExperts, 3, 0, 1}), Contains("blk.3.ffn_down_exps.bias"));
  EXPECT_THAT(TensorsOf(config, {OpKind::kAttention, 3}),
              AllOf(Contains("blk.3.attn_sinks.weight"), Contains("blk.3.attn_output.bias")));
}

TEST(Families, DeepSeekLiteHasLatentAttentionInBothLayouts) {
  LOAD_GOLDEN(config, "deepseek2-lite");
  EXPECT_EQ(config.latent.kv_lora_rank, 256);
  EXPECT_EQ(config.latent.q_lora_rank, 0);
  EXPECT_EQ(config.latent.nope_dim, 64);
  EXPECT_EQ(config.latent.v_head_dim, 64);
  EXPECT_EQ(config.head_dim, 96);
  EXPECT_EQ(config.kv_shape().key_dim, 288);
  EXPECT_EQ(config.experts.score, RouterScore::kSoftmax);
  EXPECT_FALSE(config.experts.normalise);
  EXPECT_FALSE(config.experts.choice_bias);
  EXPECT_EQ(config.experts.shared_intermediate_size, 2 * 128);
  EXPECT_FALSE(config.HasExperts(0));
  // mscale 0.707 over a factor of 4; cosines and sines are not scaled.
  const double magnitude = 0.0707 * std::log(4.0) + 1;
  EXPECT_NEAR(config.attention_scale, magnitude * magnitude / std::sqrt(96.0), 1e-6);
  EXPECT_EQ(config.rope_attention_factor, 1.0f);
  EXPECT_THAT(
      TensorsOf(config, {OpKind::kAttention, 1}),
      ElementsAre("blk.1.attn_norm.weight", "blk.1.attn_q.weight", "blk.1.attn_kv_a_mqa.weight",
                  "blk.1.attn_kv_a_norm.weight", "blk.1.attn_k_b.weight", "blk.1.attn_v_b.weight",
                  "blk.1.attn_output.weight"));

  DT_REQUIRE_DATA(merged_path, "golden/deepseek2-lite/model-bf16-kv_b.gguf");
  ASSERT_OK_AND_ASSIGN(const ModelConfig merged, LoadFile(merged_path));
  EXPECT_EQ(merged.head_dim, 96);
  EXPECT_EQ(merged.attention_scale, config.attention_scale);
  EXPECT_EQ(merged.kv_shape().key_dim, 288);
  EXPECT_THAT(TensorsOf(merged, {OpKind::kAttention, 1}), Contains("blk.1.attn_kv_b.weight"));
}

TEST(Families, DeepSeekV3ChoosesGroupsByTheirTwoBest) {
  LOAD_GOLDEN(config, "deepseek3");
  EXPECT_EQ(config.latent.q_lora_rank, 256);
  EXPECT_EQ(config.experts.score, RouterScore::kSigmoid);
  EXPECT_TRUE(config.experts.normalise);
  EXPECT_TRUE(config.experts.choice_bias);
  EXPECT_EQ(config.experts.scale, 2.5f);
  EXPECT_EQ(config.experts.num_groups, 4);
  EXPECT_EQ(config.experts.groups_used, 2);
  EXPECT_EQ(config.experts.group_score, GroupScore::kSumOfTwo);

  DT_REQUIRE_DATA(v2_path, "golden/deepseek2/model-bf16.gguf");
  ASSERT_OK_AND_ASSIGN(const ModelConfig v2, LoadFile(v2_path));
  EXPECT_EQ(v2.experts.group_score, GroupScore::kMax);
  EXPECT_EQ(v2.experts.scale, 16.0f);
}

// What a family reads from metadata alone: published models that no golden has.
template <typename Fill>
ModelConfig ReadMetadata(const std::string& architecture, const Fill& fill) {
  GgufWriter w;
  const auto put = [&](const std::string& key, uint32_t value) {
    w.AddUint32(absl::StrCat(architecture, ".", key), value);
  };
  w.AddString("general.architecture", architecture);
  put("context_length", 4096);
  put("feed_forward_length", 1024);
  w.AddFloat32(architecture + ".attention.layer_norm_rms_epsilon", 1e-6f);
  fill(put);
  const std::string path = ::testing::TempDir() + "/family_reader_metadata.gguf";
  w.Write(path);
  const auto file = GgufFile::Open(path).value();
  ModelConfig config;
  config.architecture = architecture;
  FamilyReader reader(*file, &config);
  FindFamily(architecture)->read(reader);
  return config;
}

TEST(Families, Gemma3ScalesScoresByHeadButIn27B) {
  const auto gemma = [](uint32_t layers, uint32_t hidden, uint32_t heads, uint32_t head_dim) {
    return ReadMetadata("gemma3", [&](const auto& put) {
      put("block_count", layers);
      put("embedding_length", hidden);
      put("attention.head_count", heads);
      put("attention.head_count_kv", heads / 2);
      put("attention.key_length", head_dim);
      put("attention.sliding_window", 1024);
    });
  };
  EXPECT_FLOAT_EQ(gemma(34, 2560, 8, 256).attention_scale, 1 / std::sqrt(256.0f));
  EXPECT_FLOAT_EQ(gemma(48, 3840, 16, 256).attention_scale, 1 / std::sqrt(256.0f));
  EXPECT_FLOAT_EQ(gemma(62, 5376, 32, 128).attention_scale, 1 / std::sqrt(168.0f));
}

// Files from before late 2025 leave the groups out.
TEST(Families, DeepSeekFilesWithoutGroupsGetThePublishedOnes) {
  const auto groups = [](uint32_t experts, uint32_t gating) {
    const ModelConfig config = ReadMetadata("deepseek2", [&](const auto& put) {
      put("block_count", 61);
      put("embedding_length", 7168);
      put("attention.head_count", 128);
      put("attention.key_length", 192);
      put("attention.value_length", 128);
      put("attention.kv_lora_rank", 512);
      put("rope.dimension_count", 64);
      put("expert_count", experts);
      put("expert_used_count", 6);
      if (gating > 0) put("expert_gating_func", gating);
    });
    return std::pair{config.experts.num_groups, config.experts.groups_used};
  };
  EXPECT_EQ(groups(256, 2), (std::pair{8, 4}));  // V3, R1
  EXPECT_EQ(groups(160, 0), (std::pair{8, 3}));  // V2, V2.5
  EXPECT_EQ(groups(64, 0), (std::pair{1, 1}));   // V2-Lite
  EXPECT_EQ(groups(384, 2), (std::pair{1, 1}));  // Kimi-K2
  EXPECT_EQ(groups(64, 2), (std::pair{1, 1}));   // Moonlight
}

// --- what is refused

TEST(FamiliesErrors, MissingAndMisshapenExpertsAreListedTogether) {
  GgufWriter w = MakeTinyLlama({.layers = 2, .experts = 4});
  std::string bytes = w.Serialize();
  const auto rename = [&](const std::string& name) {
    const size_t at = bytes.find(name);
    ASSERT_NE(at, std::string::npos);
    bytes[at + name.size() - 1] = 'X';
  };
  rename("blk.0.ffn_up_exps.weight");
  rename("blk.1.ffn_gate_inp.weight");
  const std::string path = ::testing::TempDir() + "/family_reader_test.gguf";
  testing::WriteFileOrDie(path, bytes);
  EXPECT_THAT(LoadFile(path),
              StatusIs(kInvalid, AllOf(HasSubstr("2 missing tensors: blk.0.ffn_up_exps.weight, "
                                                 "blk.1.ffn_gate_inp.weight"),
                                       HasSubstr("2 unexpected tensors"))));
  // Fewer experts in the tensors than the metadata promises.
  bytes = MakeTinyLlama({.layers = 1, .experts = 4}).Serialize();
  const size_t count = bytes.find("llama.expert_count") + sizeof("llama.expert_count") - 1 + 4;
  ASSERT_EQ(bytes[count], 4);
  bytes[count] = 5;
  testing::WriteFileOrDie(path, bytes);
  EXPECT_THAT(
      LoadFile(path),
      StatusIs(kInvalid,
               AllOf(HasSubstr("tensor blk.0.ffn_gate_exps.weight has shape [64, 128, 4], expected "
                               "[64, 128, 5]"),
                     HasSubstr("tensor blk.0.ffn_gate_inp.weight has shape [64, 4]"))));
}

TEST(FamiliesErrors, OldMixtralFilesAreRefusedWithAnExplanation) {
  GgufWriter w = MakeTinyLlama({.layers = 1, .experts = 2});
  w.AddTensor("blk.0.ffn_gate.0.weight", WeightType::kF32, {64, 128}, std::string(64 * 128 * 4, 0));
  EXPECT_THAT(Load(w), StatusIs(kInvalid, HasSubstr("experts are stored one by one")));
}

TEST(FamiliesErrors, ExpertCountsMustFit) {
  const auto with = [](const std::string& key, uint32_t value) {
    GgufWriter w = MakeTinyLlama({.layers = 1, .experts = 4});
    w.AddUint32(key, value);
    return Load(w);
  };
  EXPECT_THAT(Load(MakeTinyLlama({.layers = 1, .experts = 2, .experts_used = 3})),
              StatusIs(kInvalid, HasSubstr("expert_used_count: is 3, more than expert_count 2")));
  EXPECT_THAT(with("llama.expert_group_count", 3),
              StatusIs(kInvalid, HasSubstr("expert_group_count: is 3, which does not divide")));
  GgufWriter groups = MakeTinyLlama({.layers = 1, .experts = 4});
  groups.AddUint32("llama.expert_group_count", 4);
  groups.AddUint32("llama.expert_group_used_count", 1);
  EXPECT_THAT(Load(groups), StatusIs(kInvalid, HasSubstr("2 experts are to be chosen from them")));
  EXPECT_THAT(with("llama.expert_gating_func", 9),
              StatusIs(kInvalid, HasSubstr("expert_gating_func: is 9, expected 0 to 3")));
  EXPECT_THAT(with("llama.nextn_predict_layers", 1),
              StatusIs(kInvalid, HasSubstr("nextn_predict_layers: is 1, which is not supported for "
                                           "this architecture")));
}

}  // namespace
}  // namespace dovetail::model
