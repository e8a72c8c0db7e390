// SamplingParams: how the next token is drawn from the logits. Plain data, fixed size: it travels
// inside a step's frame.
#ifndef DOVETAIL_BASE_SAMPLING_PARAMS_H_
#define DOVETAIL_BASE_SAMPLING_PARAMS_H_

#include <cstdint>

namespace dovetail {

// Order of application: logits / temperature, top_k, softmax, top_p, min_p, draw with
// philox(seed, choice, position). temperature 0 is greedy: the largest logit, ties to the lowest
// id.
struct SamplingParams {
  float temperature = 1.0f;  // >= 0
  float top_p = 1.0f;        // (0, 1]; 1 is off
  float min_p = 0.0f;        // [0, 1]; 0 is off
  int32_t top_k = 0;         // >= 0; 0 is off
  uint64_t seed = 0;
  uint32_t choice = 0;  // index among n choices of one request
  uint32_t reserved = 0;
  bool operator==(const SamplingParams&) const = default;
};
static_assert(sizeof(SamplingParams) == 32);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_SAMPLING_PARAMS_H_
