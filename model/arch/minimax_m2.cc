// The `minimax-m2` family. q and k are normalised over the whole row and half of a head is rotated;
// experts are chosen by sigmoid plus a bias and weighted without it.
#include "model/arch/registry.h"
#include "model/arch/weights.h"

namespace dovetail::model {
namespace {

void Read(FamilyReader& reader) {
  reader.ReadDecoder();
  reader.config().rope_layout = RopeLayout::kHalves;
  reader.config().qk_norm = QkNorm::kWholeRow;
  reader.ReadExperts({.score = RouterScore::kSigmoid, .normalise = true, .choice_bias = true});
}

}  // namespace

extern const Family kMiniMaxM2 = {"minimax-m2", &Read, &DecoderWeights};

}  // namespace dovetail::model
