#include "model/hf_config.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model_config.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kQwen3Moe[] = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
  "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
  "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
  "num_hidden_layers": 48, "num_experts": 128, "num_experts_per_tok": 8,
  "norm_topk_prob": true, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "max_position_embeddings": 40960, "tie_word_embeddings": false, "vocab_size": 151936})";

TEST(HfConfigTest, IsTheModelThatAConverterWouldWrite) {
  ASSERT_OK_AND_ASSIGN(const auto file,
                       HeaderFromHfConfig(kQwen3Moe, "config.json", WeightType::kQ4_K));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(*file));
  EXPECT_EQ(config.architecture, "qwen3moe");
  EXPECT_EQ(config.num_hidden_layers, 48);
  EXPECT_EQ(config.experts.count, 128);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_NEAR(static_cast<double>(config.parameter_count), 30.5e9, 0.1e9);
  ASSERT_NE(file->FindTensor("blk.47.ffn_down_exps.weight"), nullptr);
  EXPECT_EQ(file->FindTensor("blk.47.ffn_down_exps.weight")->type, WeightType::kQ4_K);
  EXPECT_EQ(file->FindTensor("blk.47.ffn_gate_inp.weight")->type, WeightType::kF32);
  EXPECT_EQ(file->FindTensor("blk.0.attn_norm.weight")->type, WeightType::kF32);
}

TEST(HfConfigTest, TiedAndDense) {
  ASSERT_OK_AND_ASSIGN(const auto file, HeaderFromHfConfig(R"({"model_type": "qwen2",
    "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
    "num_key_value_heads": 2, "num_hidden_layers": 24, "tie_word_embeddings": true,
    "vocab_size": 151936})",
                                                           "c", WeightType::kQ4_K));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(*file));
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_EQ(file->FindTensor("blk.0.attn_q.weight")->type, WeightType::kQ8_0)
      << "896 is no multiple of 256";
  EXPECT_EQ(file->FindTensor("blk.0.ffn_down.weight")->type, WeightType::kQ4_K);
}

TEST(HfConfigTest, ADumpedMapHoldsOne) {
  const std::string text =
      std::string(R"({"model_class": "x.y.Qwen3MoeForCausalLM", "config": )") + kQwen3Moe + "}";
  EXPECT_OK(HeaderFromHfConfig(text, "m.json", WeightType::kQ8_0).status());
}

TEST(HfConfigTest, SaysWhatIsWrong) {
  const auto status = [](const std::string& text) {
    return HeaderFromHfConfig(text, "c.json", WeightType::kQ8_0).status();
  };
  EXPECT_THAT(status("[]"),
              StatusIs(absl::StatusCode::kInvalidArgument, "c.json: not a JSON object"));
  EXPECT_THAT(status(R"({"model_type": "bert"})"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("c.json: `model_type` \"bert\" is not supported")));
  EXPECT_THAT(status(R"({"model_type": "llama", "hidden_size": "wide", "vocab_size": -1})"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("`hidden_size` must be a whole number"),
                             HasSubstr("`num_hidden_layers` is missing"),
                             HasSubstr("`vocab_size` must be a whole number"))));
}

}  // namespace
}  // namespace dovetail::model
