// The `glm4moe` family: GLM-4.5, 4.6 and Air. Half of a head is rotated; the first layers are
// dense; experts are chosen by sigmoid plus a bias and weighted without it; a shared expert. The
// last block predicts more tokens at once and is left alone.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  reader.ReadNextn();
  ModelConfig& config = reader.config();
  config.rope_layout = RopeLayout::kHalves;
  config.qkv_bias = reader.HasTensor("blk.0.attn_q.bias");
  // GLM-4.5 has these norms, Air has none; no key says so.
  config.qk_norm = reader.HasTensor("blk.0.attn_q_norm.weight") ? QkNorm::kPerHead : QkNorm::kNone;
  reader.ReadExperts(
      {.first_layer = 1, .score = RouterScore::kSigmoid, .normalise = true, .choice_bias = true});
}

// The norm before the mlp has the name of Hugging Face's module.
std::vector<WeightSpec> WeightsOfOp(const ModelConfig& config, const Op& op) {
  return DecoderWeights(config, op, {.mlp_norm = "post_attention_norm"});
}

}  // namespace

extern const Family kGlm4Moe = {"glm4moe", &Read, &WeightsOfOp};

}  // namespace dovetail::model
