// Rotary frequencies with every scaling that GGUF files express.
#ifndef DOVETAIL_MODEL_ARCH_ROPE_H_
#define DOVETAIL_MODEL_ARCH_ROPE_H_

#include <vector>

#include "absl/types/span.h"
#include "model/arch/metadata_reader.h"

namespace dovetail::model {

struct RopeScaling {
  enum class Kind { kNone, kLinear, kYarn };
  Kind kind = Kind::kNone;
  double factor = 1.0;
  // YaRN only.
  double original_context_length = 0;
  double extrapolation_factor = 1.0;
  double attention_factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;  // the range between the two is rounded to whole dimensions
};

// By how much YaRN enlarges what a context longer by `factor` dampens: 1 + multiplier * ln(factor).
double YarnMagnitude(double factor, double multiplier);

// Reads rope.scaling.* and the older rope.scale_linear; problems go to the reader.
RopeScaling ReadRopeScaling(MetadataReader& reader, int32_t context_length);

// [rope_dim / 2] frequencies base^(-2i/rope_dim), divided by `factors[i]` (rope_freqs.weight; empty
// for none), then scaled. Computed in f64 and rounded once to f32.
std::vector<float> RopeInvFreq(double base, int32_t rope_dim, absl::Span<const double> factors,
                               const RopeScaling& scaling);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ARCH_ROPE_H_
