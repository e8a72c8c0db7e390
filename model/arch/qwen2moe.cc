// The `qwen2moe` family: Qwen1.5-MoE, Qwen2-57B-A14B. Softmax over all experts, whose weights are
// not normalised; a shared expert, weighted by its own gate.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  ModelConfig& config = reader.config();
  config.rope_layout = RopeLayout::kHalves;
  config.qkv_bias = true;
  reader.ReadExperts({.shared_intermediate_size = config.intermediate_size,
                      .shared_gate = true,
                      .score = RouterScore::kSoftmax,
                      .normalise = false});
}

}  // namespace

extern const Family kQwen2Moe = {"qwen2moe", &Read, &DecoderWeights};

}  // namespace dovetail::model
