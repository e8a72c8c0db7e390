#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/philox.h"

namespace dovetail::worker {
namespace {

// Ranked before: larger logit, then lower id.
struct RankedBefore {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  }
};

}  // namespace

Sampler::Sampler(const kernels::KernelTable* kernels, int32_t vocab_size, int32_t max_adjustments,
                 float* probs, int32_t* ids)
    : kernels_(kernels), vocab_size_(vocab_size), probs_(probs), ids_(ids) {
  unadjusted_.reserve(max_adjustments);
}

void Sampler::Logprobs(const float* logits, int32_t target, absl::Span<TokenLogprob> out) {
  Report(logits, target, out);
}

double Sampler::Report(const float* logits, int32_t target, absl::Span<TokenLogprob> out) {
  const int32_t best = kernels_->argmax(logits, vocab_size_);
  if (best < 0) {
    std::fill(out.begin(), out.end(), TokenLogprob{});
    return 0;
  }
  kernels_->softmax({.x = logits, .p = probs_, .cols = vocab_size_, .inv_temperature = 1.0f});
  double sum = 0;  // of what is relative to the best
  for (int32_t id = 0; id < vocab_size_; ++id) sum += probs_[id];
  const double log_sum = logits[best] + std::log(sum);
  const auto logprob = [&](int32_t id) {
    // A sum of rounded terms may be a little below one.
    return static_cast<float>(std::min(0.0, logits[id] - log_sum));
  };
  out[0] = target < 0 ? TokenLogprob{} : TokenLogprob{target, logprob(target)};
  // The most likely so far, in order; one that is no better than the last of them is passed by.
  const RankedBefore before{logits};
  const size_t wanted = std::min(out.size() - 1, static_cast<size_t>(vocab_size_));
  size_t found = 0;
  for (int32_t id = 0; id < vocab_size_ && wanted > 0; ++id) {
    if (found == wanted) {
      if (!before(id, ids_[found - 1])) continue;
      --found;
    }
    int32_t* at = std::upper_bound(ids_, ids_ + found, id, before);
    std::copy_backward(at, ids_ + found, ids_ + found + 1);
    *at = id;
    ++found;
  }
  for (size_t i = 1; i < out.size(); ++i) {
    out[i] = i <= found ? TokenLogprob{ids_[i - 1], logprob(ids_[i - 1])} : TokenLogprob{};
  }
  return log_sum;
}

void Sampler::Adjust(float* logits, const Constraints& constraints) {
  constexpr float kExcluded = -std::numeric_limits<float>::infinity();
  unadjusted_.clear();
  for (const LogitAdjustment& a : constraints.adjustments) {
    float& logit = logits[a.token];
    unadjusted_.push_back(logit);
    logit = (logit > 0 ? logit / a.scale : logit * a.scale) + a.bias;
  }
  if (constraints.mask == nullptr) return;
  for (int32_t begin = 0; begin < vocab_size_; begin += 32) {
    const uint32_t word = constraints.mask[begin / 32];
    if (word == ~uint32_t{0}) continue;
    const int32_t end = std::min(begin + 32, vocab_size_);
    for (int32_t id = begin; id < end; ++id) {
      if ((word >> (id - begin) & 1) == 0) logits[id] = kExcluded;
    }
  }
}

int32_t Sampler::Draw(float* logits, const Constraints& constraints, const SamplingParams& params,
                      uint32_t position, absl::Span<TokenLogprob> logprobs) {
  const double log_sum = logprobs.empty() ? 0 : Report(logits, -1, logprobs);
  Adjust(logits, constraints);
  const int32_t token = Sample(logits, params, position);
  if (token < 0 || logprobs.empty()) return token;
  float logit = logits[token];
  for (size_t i = unadjusted_.size(); i > 0; --i) {
    if (constraints.adjustments[i - 1].token == token) logit = unadjusted_[i - 1];
  }
  logprobs[0] = {token, static_cast<float>(std::min(0.0, logit - log_sum))};
  return token;
}

bool Sampler::Survives(const Cut& cut, float logit, int32_t id) {
  return logit > cut.logit || (logit == cut.logit && id <= cut.id);
}

int32_t Sampler::Sample(const float* logits, const SamplingParams& params, uint32_t position) {
  const int32_t best = kernels_->argmax(logits, vocab_size_);
  if (best < 0 || params.is_greedy()) return best;
  const float inv_temperature = 1.0f / params.temperature;

  kernels_->softmax(
      {.x = logits, .p = probs_, .cols = vocab_size_, .inv_temperature = inv_temperature});
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (std::isinf(logits[id])) probs_[id] = 0;
  }
  Cut cut = {-std::numeric_limits<float>::infinity(), vocab_size_};
  if (params.top_k > 0 && params.top_k < vocab_size_) cut = CutTopK(logits, params.top_k);
  if (params.top_p < 1.0f) cut = CutTopP(logits, params.top_p, cut);

  // probs_ is relative to the best token's, which is 1. What does not survive becomes 0.
  double total = 0;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (probs_[id] < params.min_p || !Survives(cut, logits[id], id)) probs_[id] = 0;
    total += probs_[id];
  }
  const double target = PhiloxUniform(params.seed, params.choice, position) * total;
  double sum = 0;
  int32_t last = best;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (probs_[id] <= 0) continue;
    sum += probs_[id];
    last = id;
    if (sum > target) break;
  }
  return last;
}

Sampler::Cut Sampler::CutTopK(const float* logits, int32_t top_k) {
  std::iota(ids_, ids_ + vocab_size_, 0);
  int32_t* kth = ids_ + (top_k - 1);
  std::nth_element(ids_, kth, ids_ + vocab_size_, RankedBefore{logits});
  return {logits[*kth], *kth};
}

Sampler::Cut Sampler::CutTopP(const float* logits, float top_p, const Cut& cut) {
  double total = 0;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (Survives(cut, logits[id], id)) total += probs_[id];
  }
  // All tokens below this floor have less than 1 - top_p together: the prefix ends before them.
  const double floor = (1.0 - top_p) * total / vocab_size_;
  int32_t* end = ids_;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (probs_[id] >= floor && Survives(cut, logits[id], id)) *end++ = id;
  }
  // Ranks as much as is needed, a growing piece at a time.
  const RankedBefore before{logits};
  const double wanted = top_p * total;
  double sum = 0;
  ptrdiff_t piece = 64;
  for (int32_t* first = ids_; first != end; piece *= 4) {
    int32_t* last = first + std::min(piece, end - first);
    if (last != end) std::nth_element(first, last, end, before);
    std::sort(first, last, before);
    for (; first != last; ++first) {
      sum += probs_[*first];
      if (sum >= wanted) return {logits[*first], *first};
    }
  }
  return end == ids_ ? cut : Cut{logits[end[-1]], end[-1]};
}

}  // namespace dovetail::worker
