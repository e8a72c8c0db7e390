// LogitAdjustments: what one request's logit_bias, penalties and min_tokens make of the next
// token's logits.
//
// Frames are complete in themselves, so every frame that draws a token carries all adjustments of
// its sequence: one per token that is biased or was seen. They are kept sorted by token and updated
// by what was generated since the last time. Owned by a sequence; the engine's thread only; nothing
// is allocated after the constructor.
#ifndef DOVETAIL_COORDINATOR_LOGIT_ADJUSTMENTS_H_
#define DOVETAIL_COORDINATOR_LOGIT_ADJUSTMENTS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "base/sampling_params.h"

namespace dovetail::coordinator {

struct AdjustmentOptions {
  static constexpr int kMaxBiases = 300;
  static constexpr int kMaxEndTokens = kMaxExtraAdjustments - kMaxBiases;

  std::vector<std::pair<int32_t, float>> logit_bias;  // token, what is added; at most kMaxBiases
  // Of tokens in the prompt or the answer: a positive logit is divided by it, others multiplied.
  float repetition_penalty = 1.0f;  // > 0; 1 is off
  // Taken from the logits of tokens in the answer: once, and once per occurrence.
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  // Until so many tokens were generated, `end_tokens` (at most kMaxEndTokens) are excluded.
  int min_tokens = 0;
  std::vector<int32_t> end_tokens;

  bool any() const {
    return !logit_bias.empty() || repetition_penalty != 1.0f || presence_penalty != 0.0f ||
           frequency_penalty != 0.0f || min_tokens > 0;
  }
};

class LogitAdjustments {
 public:
  LogitAdjustments(AdjustmentOptions options, int num_prompt_tokens, int max_total_tokens);

  // Appends those for the token that follows `tokens`, prompt and answer so far, which only ever
  // grow from one call to the next. Returns how many.
  int Append(absl::Span<const int32_t> tokens, std::vector<LogitAdjustment>* out);

 private:
  struct Entry {
    int32_t token;
    float bias;         // of logit_bias
    bool seen;          // in prompt or answer
    int32_t generated;  // occurrences in the answer
  };
  Entry& EntryOf(int32_t token);
  void Take(absl::Span<const int32_t> tokens);

  const AdjustmentOptions options_;
  const int num_prompt_tokens_;
  int num_taken_ = 0;           // tokens that are in the entries
  std::vector<Entry> entries_;  // by token
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_LOGIT_ADJUSTMENTS_H_
