// The `llama` family: Llama 1 to 3, Mistral, SmolLM, Mixtral and all that GGUF files call so.
// Pre-norm blocks, grouped-query attention with rotary positions, SwiGLU. Files of this
// architecture have the rows of q and k permuted so that rotary pairs are neighbours.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  reader.config().rope_layout = RopeLayout::kInterleaved;
  if (!reader.keys().Has("expert_count")) return;
  reader.ReadExperts({.score = RouterScore::kSoftmax, .normalise = true});
  if (reader.HasTensor("blk.0.ffn_gate.0.weight")) {
    reader.keys().AddProblem(
        "experts are stored one by one (blk.0.ffn_gate.0.weight ...), as files of early 2024 did; "
        "use a newer file, which has blk.0.ffn_gate_exps.weight");
  }
}

}  // namespace

extern const Family kLlama = {"llama", &Read, &DecoderWeights};

}  // namespace dovetail::model
