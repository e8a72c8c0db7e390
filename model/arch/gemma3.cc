// The `gemma3` family, text only. Scaled embeddings, norms before and after attention and mlp,
// GELU; five layers with a sliding window and rotary frequencies of their own, then one that sees
// all. GGUF files have the 1 that Gemma adds to its norm weights added already.
#include <cmath>

#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  ModelConfig& config = reader.config();
  config.rope_layout = RopeLayout::kHalves;
  config.qk_norm = QkNorm::kPerHead;
  config.post_norms = true;
  config.activation = Activation::kGelu;
  config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
  config.sliding_window = reader.keys().Dimension("attention.sliding_window", 1 << 30);
  config.full_attention_interval =
      reader.keys().Dimension("attention.sliding_window_pattern", 1 << 14, 6);
  reader.set_local_rope_base(reader.keys().Number("rope.freq_base_swa", 1.001, 1e12, 10000.0));
  // The 27B model, which no key tells apart, scales scores by hidden_size / heads instead of
  // head_dim.
  if (config.num_hidden_layers == 62) {
    config.attention_scale = static_cast<float>(
        1 / std::sqrt(static_cast<double>(config.hidden_size) / config.num_attention_heads));
  }
}

}  // namespace

extern const Family kGemma3 = {"gemma3", &Read, &DecoderWeights};

}  // namespace dovetail::model
