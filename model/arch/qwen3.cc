// The `qwen3` family. Every head of q and k is normalised before it is rotated.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  reader.config().rope_layout = RopeLayout::kHalves;
  reader.config().qk_norm = QkNorm::kPerHead;
}

}  // namespace

extern const Family kQwen3 = {"qwen3", &Read, &DecoderWeights};

}  // namespace dovetail::model
