// Sampler: from a row of logits to a token, and to the logprobs that a client wants to see.
//
// Logprobs come from the row as the model made it. For a draw the row is then changed in place:
// adjustments in order, then the mask; what is excluded becomes minus infinity and is never drawn.
//
// SamplingParams says what is applied in which order. Tokens are ranked by logit, largest first,
// ties to the lowest id; top_k and top_p keep a prefix of that ranking, min_p drops what is less
// likely than min_p times the first. Among those left, the token is found by walking in ascending
// order of ids until the sum of probabilities exceeds u * total, u = PhiloxUniform(seed, choice,
// position of the new token). Sums are in double, in a fixed order: the same arguments give the
// same token anywhere.
//
// A vocabulary has 150,000 tokens, of which few matter: blocks without any are passed by
// (block_summary.h), and no more is ranked than it takes.
//
// One per thread of the worker; nothing is allocated after the constructor.
#ifndef DOVETAIL_WORKER_SAMPLER_H_
#define DOVETAIL_WORKER_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "base/sampling_params.h"
#include "kernels/kernel_table.h"

namespace dovetail::worker {

class Sampler {
 public:
  // `probs` and `ids` have room for vocab_size of each. A draw has at most `max_adjustments`.
  Sampler(const kernels::KernelTable* kernels, int32_t vocab_size, int32_t max_adjustments,
          float* probs, int32_t* ids);

  // out[0]: the target's logprob, then the most likely tokens', ties to the lowest id. A target of
  // -1 has logprob 0.
  void Logprobs(const float* logits, int32_t target, absl::Span<TokenLogprob> out);

  // What is to be done to the logits before a token is drawn from them. `mask` has
  // MaskWords(vocab_size) words, or is null: everything is allowed.
  struct Constraints {
    absl::Span<const LogitAdjustment> adjustments;  // of tokens below vocab_size
    const uint32_t* mask = nullptr;
  };
  // Sample() after the constraints; changes the logits. Unless `logprobs` is empty it gets those of
  // the token that is drawn, as Logprobs() would tell them of the logits unchanged.
  int32_t Draw(float* logits, const Constraints& constraints, const SamplingParams& params,
               uint32_t position, absl::Span<TokenLogprob> logprobs);

  // The token at `position` of its sequence; -1 if a logit is NaN.
  int32_t Sample(const float* logits, const SamplingParams& params, uint32_t position);

 private:
  // Of a whole row: probs_[id], relative to the best token's, which is 1. Returns their sum, of
  // which sums_ has the parts.
  double Probabilities(const float* logits, float best, float temperature);
  // Those below leave n tokens as ids_[0, n), with their probs_[id], and return n.

  // What top_k, top_p and min_p leave, ascending.
  int32_t Survivors(const float* logits, float best, const SamplingParams& params);
  // What top_k leaves of all, ascending.
  int32_t KeepTopK(const float* logits, const SamplingParams& params);
  // The first of ids_[0, n) in the ranking, until they have `wanted` together; in any order.
  int32_t KeepTopP(const float* logits, double wanted, int32_t n);
  // The likeliest of all, which have more than top_p of the total together, ascending.
  int32_t CollectLikely(double total, float top_p);
  // Those with x[id] >= least, ascending, where largest_ is of x.
  int32_t Collect(const float* x, float least);
  // probs_ of ids_[0, n) together.
  double TotalOf(int32_t n) const;

  void Adjust(float* logits, const Constraints& constraints);
  // Logprobs(); returns the logarithm of the sum of exp(logit).
  double Report(const float* logits, int32_t target, absl::Span<TokenLogprob> out);
  // The most likely tokens in order, in ids_; returns how many: `wanted`, or all.
  int32_t RankFirst(const float* logits, int32_t wanted);

  const kernels::KernelTable* kernels_;
  int32_t vocab_size_;
  float* probs_;
  int32_t* ids_;
  std::vector<float> largest_;     // of each block of what is looked through
  std::vector<double> sums_;       // of each block of probs_
  std::vector<float> unadjusted_;  // what the adjusted logits were
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_SAMPLER_H_
