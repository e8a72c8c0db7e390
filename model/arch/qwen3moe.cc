// The `qwen3moe` family: Qwen3-30B-A3B, Qwen3-235B-A22B. Qwen3's attention; softmax over all
// experts, the chosen weights normalised; no shared expert.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  reader.config().rope_layout = RopeLayout::kHalves;
  reader.config().qk_norm = QkNorm::kPerHead;
  reader.ReadExperts({.score = RouterScore::kSoftmax, .normalise = true});
}

}  // namespace

extern const Family kQwen3Moe = {"qwen3moe", &Read, &DecoderWeights};

}  // namespace dovetail::model
