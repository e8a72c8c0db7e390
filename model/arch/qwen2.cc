// The `qwen2` family: Qwen 1.5 to 2.5. Biases of q, k and v.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  reader.config().rope_layout = RopeLayout::kHalves;
  reader.config().qkv_bias = true;
}

}  // namespace

extern const Family kQwen2 = {"qwen2", &Read, &DecoderWeights};

}  // namespace dovetail::model
