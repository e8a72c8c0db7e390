#include "model/model_config.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::GgufWriter;
using ::dovetail::testing::IsOk;
using ::dovetail::testing::MakeTinyLlama;
using ::dovetail::testing::RandomWeights;
using ::dovetail::testing::StatusIs;
using ::dovetail::testing::TinyLlamaOptions;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string TempFile() { return ::testing::TempDir() + "/model_config_test.gguf"; }

absl::StatusOr<ModelConfig> Load(const GgufWriter& writer) {
  writer.Write(TempFile());
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(TempFile());
  if (!file.ok()) return file.status();
  return LoadModelConfig(**file);
}

// A tiny model with more metadata.
absl::StatusOr<ModelConfig> LoadWith(const std::function<void(GgufWriter&)>& add,
                                     const TinyLlamaOptions& options = {}) {
  GgufWriter writer = MakeTinyLlama(options);
  add(writer);
  return Load(writer);
}

// The metadata of a tiny model, written by the test so that it can leave out or change any key.
struct Keys {
  int64_t blocks = 1, context = 64, embedding = 32, ffn = 64, heads = 4, kv_heads = 2, vocab = 50;
  float eps = 1e-5f;
};
GgufWriter WithKeys(const Keys& keys) {
  GgufWriter w;
  w.AddString("general.architecture", "llama");
  w.AddInt64("llama.block_count", keys.blocks);
  w.AddInt64("llama.context_length", keys.context);
  w.AddInt64("llama.embedding_length", keys.embedding);
  w.AddInt64("llama.feed_forward_length", keys.ffn);
  w.AddInt64("llama.attention.head_count", keys.heads);
  w.AddInt64("llama.attention.head_count_kv", keys.kv_heads);
  w.AddInt64("llama.vocab_size", keys.vocab);
  w.AddFloat32("llama.attention.layer_norm_rms_epsilon", keys.eps);
  return w;
}

TEST(ModelConfig, LoadsTinyModelsOfEveryType) {
  for (WeightType type : SupportedWeightTypes()) {
    const bool wide = InfoOf(type).block_elements == 256;
    const TinyLlamaOptions options = {
        .hidden = wide ? 256 : 64, .ffn = wide ? 512 : 128, .type = type};
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(MakeTinyLlama(options)));
    EXPECT_EQ(config.architecture, "llama");
    EXPECT_EQ(config.name, "Tiny Llama");
    EXPECT_EQ(config.vocab_size, 320);
    EXPECT_EQ(config.hidden_size, options.hidden);
    EXPECT_EQ(config.intermediate_size, options.ffn);
    EXPECT_EQ(config.num_hidden_layers, 2);
    EXPECT_EQ(config.num_attention_heads, 4);
    EXPECT_EQ(config.num_key_value_heads, 2);
    EXPECT_EQ(config.head_dim, options.hidden / 4);
    EXPECT_EQ(config.rope_dim, config.head_dim);
    EXPECT_EQ(config.rope_layout, RopeLayout::kInterleaved);
    EXPECT_EQ(config.max_position_embeddings, 256);
    EXPECT_EQ(config.rms_norm_eps, 1e-5f);
    EXPECT_EQ(config.attention_scale, static_cast<float>(1 / std::sqrt(options.hidden / 4.0)));
    EXPECT_EQ(config.rope_attention_factor, 1.0f);
    EXPECT_FALSE(config.tie_word_embeddings);
  }
}

TEST(ModelConfig, CountsParametersAndTies) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig tied, Load(MakeTinyLlama({.tied = true})));
  EXPECT_TRUE(tied.tie_word_embeddings);
  // Per layer: q, o 64 x 64; k, v 64 x 32; three 64 x 128; two norms.
  constexpr int64_t kLayer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64;
  EXPECT_EQ(tied.parameter_count, 2 * kLayer + 320 * 64 + 64);
  EXPECT_EQ(WeightsOf(tied, {OpKind::kLmHead})[0].tensor, "token_embd.weight");
  ASSERT_OK_AND_ASSIGN(const ModelConfig own, Load(MakeTinyLlama({.tied = false})));
  EXPECT_EQ(own.parameter_count, tied.parameter_count + 320 * 64);
  EXPECT_EQ(WeightsOf(own, {OpKind::kLmHead})[0].tensor, "output.weight");
}

TEST(ModelConfig, LayersWithExpertsAreInParts) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(MakeTinyLlama({.layers = 1, .experts = 5})));
  const std::vector<Op> ops = OpsOf(config);
  EXPECT_THAT(ops,
              ElementsAre(Op{OpKind::kEmbedding}, Op{OpKind::kAttention, 0}, Op{OpKind::kRouter, 0},
                          Op{OpKind::kExperts, 0, 0, 5}, Op{OpKind::kNorm}, Op{OpKind::kLmHead}));
  EXPECT_EQ(ModuleName(ops[2]), "model.layers.0.mlp.gate");
  EXPECT_EQ(ModuleName(ops[3]), "model.layers.0.mlp.experts[0-4]");
  EXPECT_EQ(ModuleName({OpKind::kExperts, 7, 3, 4}), "model.layers.7.mlp.experts[3]");
  EXPECT_EQ(ModuleName({OpKind::kSharedExperts, 7}), "model.layers.7.mlp.shared_experts");
  // Who owns the norm, and who has a copy of it; a range has its own experts.
  EXPECT_FALSE(WeightsOf(config, ops[2])[0].is_copy);
  const std::vector<WeightSpec> some = WeightsOf(config, {OpKind::kExperts, 0, 2, 4});
  EXPECT_EQ(some[0].tensor, "blk.0.ffn_norm.weight");
  EXPECT_TRUE(some[0].is_copy);
  EXPECT_EQ(some[1].tensor, "blk.0.ffn_gate_exps.weight");
  EXPECT_EQ(some[1].first_expert, 2);
  EXPECT_EQ(some[1].experts, 2);
}

TEST(ModelConfig, ChecksThatOpsAreTheModels) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(MakeTinyLlama({.layers = 1, .experts = 5})));
  const auto with = [&](const std::vector<Op>& experts) {
    std::vector<Op> ops = OpsOf(config);
    ops.erase(ops.begin() + 3);
    ops.insert(ops.begin() + 3, experts.begin(), experts.end());
    return CheckOps(config, ops);
  };
  constexpr OpKind kExperts = OpKind::kExperts;
  EXPECT_OK(with({{kExperts, 0, 0, 5}}));
  EXPECT_OK(with({{kExperts, 0, 3, 5}, {kExperts, 0, 0, 1}, {kExperts, 0, 1, 3}}));
  const auto refused = [](const std::string& text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
  };
  EXPECT_THAT(with({}), refused("experts[0-4] at op 3 of 5"));
  EXPECT_THAT(with({{kExperts, 0, 0, 4}}), refused("experts[0-4] at op 4 of 6"));
  EXPECT_THAT(with({{kExperts, 0, 0, 4}, {kExperts, 0, 3, 5}}), refused("expert 3 is there twice"));
  EXPECT_THAT(with({{kExperts, 0, 0, 6}}), refused("experts[0-5]"));
  EXPECT_THAT(with({{kExperts, 0, -1, 5}}), refused("at op 3"));
  EXPECT_THAT(with({{kExperts, 1, 0, 5}}), refused("experts[0-4] at op 3"));
  EXPECT_THAT(with({{OpKind::kMlp, 0}}), refused("experts[0-4] at op 3"));
  std::vector<Op> ops = OpsOf(config);
  ops.push_back({OpKind::kLmHead});
  EXPECT_THAT(CheckOps(config, ops), refused("more than there are at op 6 of 7"));
  ops.resize(4);
  EXPECT_THAT(CheckOps(config, ops), refused("model.norm at op 4 of 4"));
}

TEST(ModelConfig, NamesOpsModulesAndWeights) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(MakeTinyLlama()));
  EXPECT_THAT(OpsOf(config),
              ElementsAre(Op{OpKind::kEmbedding}, Op{OpKind::kAttention, 0}, Op{OpKind::kMlp, 0},
                          Op{OpKind::kAttention, 1}, Op{OpKind::kMlp, 1}, Op{OpKind::kNorm},
                          Op{OpKind::kLmHead}));
  std::vector<std::string> lines;
  for (const Op& op : {Op{OpKind::kEmbedding}, Op{OpKind::kAttention, 1}, Op{OpKind::kMlp, 0},
                       Op{OpKind::kNorm}, Op{OpKind::kLmHead}}) {
    for (const WeightSpec& w : WeightsOf(config, op)) {
      lines.push_back(absl::StrCat(w.tensor, " ", w.module, " ", w.rows, "x", w.cols,
                                   w.is_vector ? " vector" : ""));
    }
  }
  EXPECT_THAT(
      lines,
      ElementsAre("token_embd.weight model.embed_tokens 320x64",
                  "blk.1.attn_norm.weight model.layers.1.input_layernorm 1x64 vector",
                  "blk.1.attn_q.weight model.layers.1.self_attn.q_proj 64x64",
                  "blk.1.attn_k.weight model.layers.1.self_attn.k_proj 32x64",
                  "blk.1.attn_v.weight model.layers.1.self_attn.v_proj 32x64",
                  "blk.1.attn_output.weight model.layers.1.self_attn.o_proj 64x64",
                  "blk.0.ffn_norm.weight model.layers.0.post_attention_layernorm 1x64 vector",
                  "blk.0.ffn_gate.weight model.layers.0.mlp.gate_proj 128x64",
                  "blk.0.ffn_up.weight model.layers.0.mlp.up_proj 128x64",
                  "blk.0.ffn_down.weight model.layers.0.mlp.down_proj 64x128",
                  "output_norm.weight model.norm 1x64 vector", "output.weight lm_head 320x64"));
}

TEST(ModelConfig, RefusesOtherFamiliesByName) {
  GgufWriter w;
  EXPECT_THAT(Load(w), StatusIs(absl::StatusCode::kNotFound,
                                HasSubstr("metadata key general.architecture is missing")));
  w.AddString("general.architecture", "starcoder2");
  EXPECT_THAT(
      Load(w),
      StatusIs(kInvalid,
               Eq(TempFile() +
                  ": architecture \"starcoder2\" is not supported (supported: "
                  "deepseek2, gemma3, glm4moe, gpt-oss, llama, minimax-m2, qwen2, qwen2moe, "
                  "qwen3, qwen3moe)")));
  EXPECT_THAT(
      LoadWith([](GgufWriter& t) { t.AddString("general.type", "adapter"); }),
      StatusIs(kInvalid, HasSubstr("general.type is \"adapter\", architecture \"llama\", expected "
                                   "a language model; a LoRA adapter must be merged")));
  EXPECT_THAT(LoadWith([](GgufWriter& t) { t.AddString("general.type", "mmproj"); }),
              StatusIs(kInvalid, HasSubstr("this is the vision part of a model")));
  EXPECT_THAT(LoadWith([](GgufWriter& t) { t.AddString("general.type", "dataset"); }),
              StatusIs(kInvalid, EndsWith("expected a language model")));
  EXPECT_THAT(LoadWith([](GgufWriter& t) { t.AddUint32("llama.attention.sliding_window", 8); }),
              StatusIs(kInvalid, HasSubstr("llama.attention.sliding_window: is 8, which is not "
                                           "supported for this architecture")));
}

TEST(ModelConfig, ListsAllBadKeys) {
  GgufWriter w;
  w.AddString("general.architecture", "llama");
  w.AddString("llama.block_count", "two");
  w.AddUint32("llama.embedding_length", 0);
  w.AddFloat32("llama.attention.head_count", 2.5f);
  w.AddFloat32("llama.attention.layer_norm_rms_epsilon", std::nanf(""));
  w.AddFloat32("llama.logit_scale", 0.5f);
  w.AddBool("llama.attention.causal", false);
  w.AddString("llama.rope.scaling.type", "longrope");
  EXPECT_THAT(
      Load(w),
      StatusIs(kInvalid,
               Eq(TempFile() +
                  ": cannot be run:\n"
                  "  llama.block_count: is string, expected a number\n"
                  "  llama.embedding_length: is 0, expected 1 to 1048576\n"
                  "  llama.feed_forward_length: is missing\n"
                  "  llama.context_length: is missing\n"
                  "  llama.attention.layer_norm_rms_epsilon: is nan, expected 0 to 1\n"
                  "  llama.vocab_size: is missing\n"
                  "  llama.attention.head_count: is 2.5, not an integer\n"
                  "  llama.rope.scaling.type: \"longrope\" is not supported; expected none, "
                  "linear or yarn\n"
                  "  llama.logit_scale: is 0.5, which is not supported for this architecture\n"
                  "  llama.attention.causal: is false: models that do not generate text left to "
                  "right are not supported")));
}

TEST(ModelConfig, RefusesInconsistentHeads) {
  GgufWriter uneven = WithKeys({.heads = 6, .kv_heads = 4});
  EXPECT_THAT(Load(uneven),
              StatusIs(kInvalid, AllOf(HasSubstr("attention.head_count: is 6, not a multiple of "
                                                 "head_count_kv 4"),
                                       HasSubstr("embedding_length: is 32, not a multiple of "
                                                 "attention.head_count 6"))));
  GgufWriter lengths = WithKeys({});
  lengths.AddUint32("llama.attention.key_length", 7);
  lengths.AddUint32("llama.rope.dimension_count", 10);
  EXPECT_THAT(Load(lengths),
              StatusIs(kInvalid, AllOf(HasSubstr("attention.value_length: is 8, but "
                                                 "attention.key_length is 7"),
                                       HasSubstr("attention.key_length: is 7, not even"),
                                       HasSubstr("rope.dimension_count: is 10, expected an even "
                                                 "number up to 7"))));
  GgufWriter many = WithKeys({.blocks = 1000});
  EXPECT_THAT(Load(many), StatusIs(kInvalid, HasSubstr("block_count: is 1000, but the file has "
                                                       "only 0 tensors")));
}

TEST(ModelConfig, PerLayerArraysMustBeUniform) {
  const auto with_heads = [](std::vector<int32_t> kv_heads) {
    GgufWriter w;
    w.AddString("general.architecture", "llama");
    w.AddUint32("llama.attention.head_count", 4);
    w.AddInt32s("llama.attention.head_count_kv", kv_heads);
    return w;
  };
  EXPECT_THAT(Load(with_heads({2, 2, 4})),
              StatusIs(kInvalid, HasSubstr("llama.attention.head_count_kv: differs from layer to "
                                           "layer (2 and 4), which is not supported")));
  EXPECT_THAT(Load(with_heads({})), StatusIs(kInvalid, HasSubstr("is an empty array")));
  EXPECT_THAT(Load(with_heads({2, 2})), StatusIs(kInvalid, Not(HasSubstr("head_count_kv"))));
}

TEST(ModelConfig, ListsAllBadTensors) {
  GgufWriter w = WithKeys({});
  const auto matrix = [&](const std::string& name, uint64_t cols, uint64_t rows,
                          WeightType type = WeightType::kF32) {
    w.AddTensor(name, type, {cols, rows}, std::string(StoredBytes(type, cols * rows), '\0'));
  };
  matrix("token_embd.weight", 32, 50);
  matrix("blk.0.attn_q.weight", 32, 32, WeightType::kQ8_1);
  matrix("blk.0.attn_k.weight", 32, 16, WeightType::kQ8_1);
  matrix("blk.0.attn_v.weight", 16, 32);
  matrix("blk.0.ffn_gate.weight", 32, 64, WeightType::kI8);
  w.AddTensor("blk.0.attn_norm.weight", WeightType::kQ8_0, {32}, std::string(34, '\0'));
  w.AddTensor("blk.0.attn_q.bias", WeightType::kF32, {32}, std::string(128, '\0'));
  matrix("blk.1.ffn_up.weight", 32, 64);
  EXPECT_THAT(
      Load(w),
      StatusIs(kInvalid,
               Eq(TempFile() +
                  ": cannot be run:\n"
                  "  5 missing tensors: blk.0.attn_output.weight, blk.0.ffn_norm.weight, "
                  "blk.0.ffn_up.weight, blk.0.ffn_down.weight, output_norm.weight\n"
                  "  tensor blk.0.attn_v.weight has shape [16, 32], expected [32, 16]\n"
                  "  weight type Q8_1 is not supported (supported: F32, F16, Q4_0, Q4_1, Q5_0, "
                  "Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, "
                  "IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, IQ1_M, BF16, TQ1_0, TQ2_0, MXFP4, NVFP4); 2 such "
                  "tensors: blk.0.attn_q.weight, blk.0.attn_k.weight\n"
                  "  weight type I8 is not supported (supported: F32, F16, Q4_0, Q4_1, Q5_0, "
                  "Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, "
                  "IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, IQ1_M, BF16, TQ1_0, TQ2_0, MXFP4, NVFP4); 1 such "
                  "tensor: blk.0.ffn_gate.weight\n"
                  "  norms, biases and scales are F32, F16 or BF16, not Q8_0; 1 such tensor: "
                  "blk.0.attn_norm.weight\n"
                  "  2 unexpected tensors: \"blk.0.attn_q.bias\", \"blk.1.ffn_up.weight\"")));
}

TEST(ModelConfig, ScalesOfMatrices) {
  const auto load = [](const std::string& name, std::vector<uint64_t> shape, WeightType type) {
    return LoadWith([&](GgufWriter& t) {
      t.AddTensor(name, type, shape, std::string(StoredBytes(type, shape[0]), 0));
    });
  };
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, load("blk.0.attn_q.scale", {1}, WeightType::kF32));
  EXPECT_THAT(config.scaled_weights, ::testing::ElementsAre("blk.0.attn_q.weight"));
  EXPECT_EQ(WeightsOf(config, {OpKind::kAttention, 0}).back().tensor, "blk.0.attn_q.scale");
  EXPECT_EQ(WeightsOf(config, {OpKind::kAttention, 1}).back().role, WeightRole::kO);
  ASSERT_OK(load("blk.0.attn_q.input_scale", {1}, WeightType::kF32).status());
  EXPECT_THAT(
      load("blk.0.attn_q.scale", {2}, WeightType::kF32),
      StatusIs(kInvalid, HasSubstr("tensor blk.0.attn_q.scale has shape [2], expected [1]")));
  EXPECT_THAT(load("blk.0.attn_q.scale", {32}, WeightType::kQ8_0),
              StatusIs(kInvalid, HasSubstr("norms, biases and scales are F32, F16 or BF16")));
  for (const char* name : {"token_embd.scale", "blk.0.attn_norm.scale", "blk.0.attn_x.scale"}) {
    EXPECT_THAT(load(name, {1}, WeightType::kF32),
                StatusIs(kInvalid, HasSubstr(absl::StrCat("1 unexpected tensor: \"", name, "\""))));
  }
}

// A split model of three shards: the second is missing, the third is cut off, and the first lacks a
// tensor that no other has.
TEST(ModelConfig, ShardsAndTensorsThatAreMissingAreOneMessage) {
  const std::string dir = ::testing::TempDir() + "/model_config_test_split/";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directory(dir);
  GgufWriter first = WithKeys({});
  const auto number = [](GgufWriter& w, int no) {
    w.AddUint16("split.no", no);
    w.AddUint16("split.count", 3);
    w.AddInt32("split.tensors.count", 11);
  };
  number(first, 0);
  first.AddTensor("token_embd.weight", WeightType::kF32, {32, 50}, std::string(32 * 50 * 4, '\0'));
  first.AddTensor("blk.0.attn_norm.weight", WeightType::kF32, {16}, std::string(64, '\0'));
  first.Write(dir + "m-00001-of-00003.gguf");
  testing::WriteFileOrDie(dir + "m-00003-of-00003.gguf", "GGUF");
  const std::string rest =
      ": cannot be run:\n"
      "  9 missing tensors: blk.0.attn_q.weight, blk.0.attn_k.weight, blk.0.attn_v.weight, "
      "blk.0.attn_output.weight, blk.0.ffn_norm.weight, blk.0.ffn_gate.weight, "
      "blk.0.ffn_up.weight, blk.0.ffn_down.weight, output_norm.weight\n"
      "  tensor blk.0.attn_norm.weight has shape [16], expected [32]";
  EXPECT_THAT(OpenModelFile(dir),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(dir + "m-*.gguf: shard 2 of 3 is missing (named like "),
                             HasSubstr("\n" + dir + "m-00003-of-00003.gguf: "),
                             EndsWith("\nof what the other shards hold, " + dir + rest))));
  EXPECT_THAT(GgufFile::Open(dir),
              StatusIs(absl::StatusCode::kNotFound, Not(HasSubstr("missing tensors"))));
  // Without the first one there is nothing to compare with.
  std::filesystem::remove(dir + "m-00001-of-00003.gguf");
  EXPECT_THAT(OpenModelFile(dir),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("shards 1, 2 of 3 are missing"),
                                                          HasSubstr("m-00003-of-00003.gguf: "),
                                                          Not(HasSubstr("missing tensors")))));
}

TEST(ModelConfig, ChecksTheVocabulary) {
  GgufWriter w = WithKeys({.vocab = 2});
  w.AddTensor("token_embd.weight", WeightType::kF32, {32, 2}, std::string(256, '\0'));
  w.AddStrings("tokenizer.ggml.tokens", {"a", "b", "c"});
  EXPECT_THAT(Load(w), StatusIs(kInvalid, HasSubstr("tokenizer.ggml.tokens: has 3 tokens, more "
                                                    "than the vocabulary's 2")));
}

TEST(ModelConfig, VocabularySizeFollowsTheEmbedding) {
  std::string bytes = MakeTinyLlama({.vocab = 300}).Serialize();
  bytes[bytes.find("llama.vocab_size") + 6] = 'x';
  testing::WriteFileOrDie(TempFile(), bytes);
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(TempFile()));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(*file));
  EXPECT_EQ(config.vocab_size, 300);
}

TEST(ModelConfig, NameFallsBackToTheFile) {
  GgufWriter w = MakeTinyLlama();
  std::string bytes = w.Serialize();
  const size_t at = bytes.find("general.name");
  bytes[at + 8] = 'g';  // general.game
  testing::WriteFileOrDie(TempFile(), bytes);
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(TempFile()));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(*file));
  EXPECT_EQ(config.name, "model_config_test");
}

// Rotary frequencies. Head dimension 64 throughout: hidden 64, one head.
constexpr TinyLlamaOptions kOneHead = {.layers = 1, .hidden = 64, .heads = 1, .kv_heads = 1};

TEST(ModelConfigRope, PlainFrequencies) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(MakeTinyLlama(kOneHead)));
  ASSERT_EQ(config.rope_inv_freq.size(), 32u);
  EXPECT_EQ(config.rope_inv_freq[0], 1.0f);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(config.rope_inv_freq[i], static_cast<float>(1 / std::pow(10000.0, i / 32.0)));
  }
}

TEST(ModelConfigRope, LinearScalingInOldAndNewKeys) {
  const auto second = [](const std::function<void(GgufWriter&)>& add) {
    return LoadWith(add, kOneHead).value().rope_inv_freq[0];
  };
  EXPECT_EQ(second([](GgufWriter& w) { w.AddFloat32("llama.rope.scale_linear", 4); }), 0.25f);
  EXPECT_EQ(second([](GgufWriter& w) { w.AddFloat32("llama.rope.scaling.factor", 2); }), 0.5f);
  EXPECT_EQ(second([](GgufWriter& w) {
              w.AddString("llama.rope.scaling.type", "linear");
              w.AddFloat32("llama.rope.scaling.factor", 8);
            }),
            0.125f);
  EXPECT_EQ(second([](GgufWriter& w) {
              w.AddString("llama.rope.scaling.type", "none");
              w.AddFloat32("llama.rope.scaling.factor", 8);
            }),
            1.0f);
}

// Expected: Hugging Face's _compute_yarn_parameters for dim 64, theta 10000, factor 4, original
// 4096, evaluated in f64 by Python; the correction range is [10, 23].
TEST(ModelConfigRope, Yarn) {
  const auto yarn = [](GgufWriter& w) {
    w.AddString("llama.rope.scaling.type", "yarn");
    w.AddFloat32("llama.rope.scaling.factor", 4);
    w.AddUint32("llama.rope.scaling.original_context_length", 4096);
  };
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadWith(yarn, kOneHead));
  const std::pair<int, double> expected[] = {
      {0, 1.0},
      {5, 0.23713737056616555},
      {12, 0.02797399468610489},
      {15, 0.009488517882700576},
      {20, 0.0013378867023789293},
      {26, 0.00014058533129758727},
      {31, 3.33380358040831e-05},
  };
  for (const auto& [i, value] : expected) {
    EXPECT_FLOAT_EQ(config.rope_inv_freq[i], static_cast<float>(value)) << i;
  }
  EXPECT_FLOAT_EQ(config.rope_attention_factor, 1.138629436111989f);

  ASSERT_OK_AND_ASSIGN(const ModelConfig given,
                       LoadWith(
                           [&](GgufWriter& w) {
                             yarn(w);
                             w.AddFloat32("llama.rope.scaling.yarn_attn_factor", 1.5f);
                           },
                           kOneHead));
  EXPECT_EQ(given.rope_attention_factor, 1.5f);
  EXPECT_THAT(LoadWith(
                  [&](GgufWriter& w) {
                    yarn(w);
                    w.AddFloat32("llama.rope.scaling.yarn_log_multiplier", 0.1f);
                  },
                  kOneHead),
              StatusIs(kInvalid, HasSubstr("yarn_log_multiplier: is 0.1, which is not")));
}

TEST(ModelConfigRope, FrequencyFactorsDivide) {
  const auto load = [](int count, float third) {
    return LoadWith(
        [&](GgufWriter& w) {
          std::string data;
          for (int i = 0; i < count; ++i) data += GgufWriter::Bytes(i == 2 ? third : 1.0f);
          w.AddTensor("rope_freqs.weight", WeightType::kF32, {static_cast<uint64_t>(count)}, data);
        },
        kOneHead);
  };
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, load(32, 4.0f));
  EXPECT_EQ(config.rope_inv_freq[2], static_cast<float>(1 / std::pow(10000.0, 2 / 32.0) / 4));
  EXPECT_EQ(config.rope_inv_freq[3], static_cast<float>(1 / std::pow(10000.0, 3 / 32.0)));
  EXPECT_THAT(load(32, 0.0f), StatusIs(kInvalid, HasSubstr("rope_freqs.weight: element 2 is 0, "
                                                           "expected a positive number")));
  EXPECT_THAT(load(16, 1.0f), StatusIs(kInvalid, HasSubstr("rope_freqs.weight: expected [32] "
                                                           "elements of a float type")));
}

// Against Hugging Face's llama3 rule with the parameters of golden/llama/golden.json.
TEST(ModelConfigRope, GoldenLlama3Scaling) {
  DT_REQUIRE_DATA(path, "golden/llama/model-bf16.gguf");
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(*file));
  constexpr double kPi = 3.14159265358979323846;
  constexpr double kFactor = 4, kLow = 1, kHigh = 4, kOriginal = 64;
  ASSERT_EQ(config.rope_inv_freq.size(), 32u);
  for (int i = 0; i < 32; ++i) {
    double f = 1 / std::pow(10000.0, i / 32.0);
    const double wavelength = 2 * kPi / f;
    if (wavelength > kOriginal / kLow) {
      f /= kFactor;
    } else if (wavelength >= kOriginal / kHigh) {
      const double smooth = (kOriginal / wavelength - kLow) / (kHigh - kLow);
      f = (1 - smooth) * f / kFactor + smooth * f;
    }
    EXPECT_NEAR(config.rope_inv_freq[i] / f, 1, 3e-7) << i;  // the file's factors are f32
  }
}

}  // namespace
}  // namespace dovetail::model
