// The `gpt-oss` family. Biases everywhere, a sink per head, every other layer with a sliding
// window; experts chosen by their logits, weighted by the softmax over the chosen, with a clamped
// SwiGLU.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  ModelConfig& config = reader.config();
  config.rope_layout = RopeLayout::kHalves;
  // The published configuration has truncate: false, for which GGUF has no key.
  reader.rope_scaling().truncate = false;
  config.qkv_bias = true;
  config.o_bias = true;
  config.attention_sinks = true;
  config.sliding_window = reader.keys().Dimension("attention.sliding_window", 1 << 30);
  config.full_attention_interval =
      reader.keys().Dimension("attention.sliding_window_pattern", 1 << 14, 2);
  config.activation = Activation::kSwigluOai;
  reader.ReadExperts({.score = RouterScore::kSoftmaxOfChosen, .router_bias = true, .biases = true});
}

std::vector<WeightSpec> WeightsOfOp(const ModelConfig& config, const Op& op) {
  return DecoderWeights(config, op, {.mlp_norm = "post_attention_norm"});
}

}  // namespace

extern const Family kGptOss = {"gpt-oss", &Read, &WeightsOfOp};

}  // namespace dovetail::model
