// Sampler: from a row of logits to a token.
//
// SamplingParams says what is applied in which order. Tokens are ranked by logit, largest first,
// ties to the lowest id; top_k and top_p keep a prefix of that ranking, min_p drops what is less
// likely than min_p times the first. Among those left, the token is found by walking in ascending
// order of ids until the sum of probabilities exceeds u * total, u = PhiloxUniform(seed, choice,
// position of the new token). Sums are in double, in a fixed order: the same arguments give the
// same token anywhere.
//
// One per worker, used by the executor's thread; Sample() allocates nothing.
#ifndef DOVETAIL_WORKER_SAMPLER_H_
#define DOVETAIL_WORKER_SAMPLER_H_

#include <cstdint>

#include "base/sampling_params.h"
#include "kernels/kernel_table.h"

namespace dovetail::worker {

class Sampler {
 public:
  // `probs` and `ids` have room for vocab_size of each.
  Sampler(const kernels::KernelTable* kernels, int32_t vocab_size, float* probs, int32_t* ids);

  // The token at `position` of its sequence; -1 if a logit is NaN.
  int32_t Sample(const float* logits, const SamplingParams& params, uint32_t position);

 private:
  // Up to where the ranking is kept: the last token that is.
  struct Cut {
    float logit;
    int32_t id;
  };
  static bool Survives(const Cut& cut, float logit, int32_t id);
  Cut CutTopK(const float* logits, int32_t top_k);
  Cut CutTopP(const float* logits, float top_p, const Cut& cut);

  const kernels::KernelTable* kernels_;
  int32_t vocab_size_;
  float* probs_;
  int32_t* ids_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_SAMPLER_H_
