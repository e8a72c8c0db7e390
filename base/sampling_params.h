// SamplingParams: how the next token is drawn from the logits, and what else a step's frame and its
// output carry for it: adjustments of single logits, masks of allowed tokens, logprobs. Plain data
// of fixed size.
#ifndef DOVETAIL_BASE_SAMPLING_PARAMS_H_
#define DOVETAIL_BASE_SAMPLING_PARAMS_H_

#include <cmath>
#include <cstdint>

namespace dovetail {

// Order of application: logprobs are taken; adjustments, mask; logits / temperature, top_k,
// softmax, top_p, min_p, draw with philox(seed, choice, position). temperature 0 is greedy: the
// largest logit, ties to the lowest id.
struct SamplingParams {
  float temperature = 1.0f;  // >= 0
  float top_p = 1.0f;        // (0, 1]; 1 is off
  float min_p = 0.0f;        // [0, 1]; 0 is off
  int32_t top_k = 0;         // >= 0; 0 is off
  uint64_t seed = 0;
  uint32_t choice = 0;  // index among n choices of one request
  uint32_t reserved = 0;
  bool operator==(const SamplingParams&) const = default;

  // A temperature whose inverse is not a number of f32 is as good as zero.
  bool is_greedy() const { return temperature <= 0 || std::isinf(1.0f / temperature); }
};
static_assert(sizeof(SamplingParams) == 32);

// What logit_bias and penalties make of one token's logit: x > 0 ? x / scale : x * scale, then
// + bias. A bias of minus infinity excludes the token.
struct LogitAdjustment {
  int32_t token = 0;
  float bias = 0.0f;   // below plus infinity
  float scale = 1.0f;  // > 0
  bool operator==(const LogitAdjustment&) const = default;
};
static_assert(sizeof(LogitAdjustment) == 12);

// Adjustments of one sequence beyond one for each token that it holds.
inline constexpr int kMaxExtraAdjustments = 512;

// A mask has one bit per token, of word token / 32 bit token % 32: 1 allows it.
inline constexpr int MaskWords(int vocab_size) { return (vocab_size + 31) / 32; }

// The natural logarithm of a token's probability at temperature 1, before any adjustment.
struct TokenLogprob {
  int32_t token = -1;
  float logprob = 0.0f;
  bool operator==(const TokenLogprob&) const = default;
};
static_assert(sizeof(TokenLogprob) == 8);

inline constexpr int kMaxTopLogprobs = 20;

}  // namespace dovetail

#endif  // DOVETAIL_BASE_SAMPLING_PARAMS_H_
