#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/philox.h"
#include "worker/block_summary.h"

namespace dovetail::worker {
namespace {

// Ranked before: larger logit, then lower id. Without a branch, which nobody could foretell.
struct RankedBefore {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return (logits[a] > logits[b]) | ((logits[a] == logits[b]) & (a < b));
  }
};

// Which of three is ranked between the others.
int32_t* MiddleOf(int32_t* a, int32_t* b, int32_t* c, const RankedBefore& before) {
  if (before(*b, *a)) std::swap(a, b);
  if (before(*c, *a)) return a;
  return before(*c, *b) ? c : b;
}

bool HasTopK(const SamplingParams& params, int32_t vocab_size) {
  return params.top_k > 0 && params.top_k < vocab_size;
}

}  // namespace

Sampler::Sampler(const kernels::KernelTable* kernels, int32_t vocab_size, int32_t max_adjustments,
                 float* probs, int32_t* ids)
    : kernels_(kernels),
      vocab_size_(vocab_size),
      probs_(probs),
      ids_(ids),
      largest_(NumSummaryBlocks(vocab_size)),
      sums_(NumSummaryBlocks(vocab_size)) {
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
  const double log_sum = logits[best] + std::log(Probabilities(logits, logits[best], 1.0f));
  const auto logprob = [&](int32_t id) {
    // A sum of rounded terms may be a little below one.
    return static_cast<float>(std::min(0.0, logits[id] - log_sum));
  };
  out[0] = target < 0 ? TokenLogprob{} : TokenLogprob{target, logprob(target)};
  const int32_t found = RankFirst(logits, static_cast<int32_t>(out.size()) - 1);
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(out.size()); ++i) {
    out[i + 1] = i < found ? TokenLogprob{ids_[i], logprob(ids_[i])} : TokenLogprob{};
  }
  return log_sum;
}

int32_t Sampler::RankFirst(const float* logits, int32_t wanted) {
  wanted = std::min(wanted, vocab_size_);
  if (wanted <= 0) return 0;
  LargestOfBlocks(logits, vocab_size_, largest_.data());
  const RankedBefore before{logits};
  int32_t found = 0;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (found == wanted) {
      // One that is no better than the last of them is passed by, and so are blocks of such.
      const float last = logits[ids_[found - 1]];
      if (id % kSummaryBlock == 0 && largest_[id / kSummaryBlock] <= last) {
        id += kSummaryBlock - 1;
        continue;
      }
      if (logits[id] <= last) continue;
      --found;
    }
    int32_t* at = std::upper_bound(ids_, ids_ + found, id, before);
    std::copy_backward(at, ids_ + found, ids_ + found + 1);
    *at = id;
    ++found;
  }
  return found;
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
    if (word == 0) {  // most, where a grammar decides
      std::fill(logits + begin, logits + end, kExcluded);
      continue;
    }
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

int32_t Sampler::Sample(const float* logits, const SamplingParams& params, uint32_t position) {
  const int32_t best = kernels_->argmax(logits, vocab_size_);
  if (best < 0 || params.is_greedy()) return best;
  const double u = PhiloxUniform(params.seed, params.choice, position);
  if (!HasTopK(params, vocab_size_) && params.top_p >= 1.0f && params.min_p <= 0.0f) {
    const double total = Probabilities(logits, logits[best], params.temperature);
    const int32_t id = PlaceOf(u * total, probs_, vocab_size_, sums_.data());
    return id < 0 ? best : id;
  }
  const int32_t n = Survivors(logits, logits[best], params);
  const double target = u * TotalOf(n);
  double sum = 0;
  int32_t last = best;
  for (int32_t i = 0; i < n && sum <= target; ++i) {
    if (probs_[ids_[i]] <= 0) continue;
    sum += probs_[ids_[i]];
    last = ids_[i];
  }
  return last;
}

double Sampler::Probabilities(const float* logits, float best, float temperature) {
  const float inv_temperature = 1.0f / temperature;
  kernels_->softmax(
      {.x = logits, .p = probs_, .cols = vocab_size_, .inv_temperature = inv_temperature});
  if (std::isinf(best) || inv_temperature == 0) {  // differences and products that are no numbers
    for (int32_t id = 0; id < vocab_size_; ++id) {
      if (std::isinf(logits[id])) probs_[id] = 0;
    }
  }
  SumsOfBlocks(probs_, vocab_size_, sums_.data());
  return SumOf(sums_);
}

double Sampler::TotalOf(int32_t n) const {
  double total = 0;
  for (int32_t i = 0; i < n; ++i) total += probs_[ids_[i]];
  return total;
}

int32_t Sampler::Survivors(const float* logits, float best, const SamplingParams& params) {
  int32_t n = 0;
  const bool has_top_k = HasTopK(params, vocab_size_);
  if (has_top_k) {
    n = KeepTopK(logits, params);
    if (params.top_p < 1.0f) n = KeepTopP(logits, params.top_p * TotalOf(n), n);
  } else {
    const double total = Probabilities(logits, best, params.temperature);
    LargestOfBlocks(probs_, vocab_size_, largest_.data());
    if (params.top_p < 1.0f) {
      n = KeepTopP(logits, params.top_p * total, CollectLikely(total, params.top_p));
    } else {
      n = Collect(probs_, params.min_p);
    }
  }
  const auto unlikely = [&](int32_t id) { return probs_[id] < params.min_p; };
  n = static_cast<int32_t>(std::remove_if(ids_, ids_ + n, unlikely) - ids_);
  if (has_top_k || n < vocab_size_ / 32) {
    std::sort(ids_, ids_ + n);
    return n;
  }
  // So many are in order sooner if they are marked and collected.
  for (int32_t i = 0; i < n; ++i) probs_[ids_[i]] = -probs_[ids_[i]];
  n = 0;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (probs_[id] >= 0) continue;
    probs_[id] = -probs_[id];
    ids_[n++] = id;
  }
  return n;
}

int32_t Sampler::KeepTopK(const float* logits, const SamplingParams& params) {
  const int32_t k = params.top_k;
  const int32_t num_blocks = NumSummaryBlocks(vocab_size_);
  LargestOfBlocks(logits, vocab_size_, largest_.data());
  // The k-th largest of the blocks' largest: k tokens at least are not below it.
  float bound = -std::numeric_limits<float>::infinity();
  if (k <= num_blocks) {
    std::copy(largest_.begin(), largest_.end(), probs_);
    std::nth_element(probs_, probs_ + (k - 1), probs_ + num_blocks, std::greater<>());
    bound = probs_[k - 1];
  }
  const int32_t n = Collect(logits, bound);
  std::nth_element(ids_, ids_ + (k - 1), ids_ + n, RankedBefore{logits});
  std::sort(ids_, ids_ + k);
  // Their probabilities, side by side; then each where it belongs, which is never further down.
  for (int32_t i = 0; i < k; ++i) probs_[i] = logits[ids_[i]];
  kernels_->softmax(
      {.x = probs_, .p = probs_, .cols = k, .inv_temperature = 1.0f / params.temperature});
  for (int32_t i = k; i-- > 0;) {
    probs_[ids_[i]] = std::isinf(logits[ids_[i]]) ? 0.0f : probs_[i];
  }
  return k;
}

int32_t Sampler::CollectLikely(double total, float top_p) {
  for (const float least : {0x1p-6f, 0x1p-12f, 0x1p-18f}) {
    const int32_t n = Collect(probs_, least);
    constexpr double kRounding = 1e-9;
    if (TotalOf(n) >= (1 + kRounding) * top_p * total) return n;
  }
  // All tokens below this have less than 1 - top_p together: the prefix ends before them.
  const double floor = (1.0 - top_p) * total / vocab_size_;
  return Collect(probs_, static_cast<float>(0.999 * floor));
}

int32_t Sampler::Collect(const float* x, float least) {
  int32_t n = 0;
  for (size_t block = 0; block < largest_.size(); ++block) {
    if (largest_[block] < least) continue;
    const int32_t begin = static_cast<int32_t>(block) * kSummaryBlock;
    const int32_t end = std::min(begin + kSummaryBlock, vocab_size_);
    for (int32_t id = begin; id < end; ++id) {
      ids_[n] = id;
      n += x[id] >= least ? 1 : 0;
    }
  }
  return n;
}

// Divides what may hold the end of the prefix in two, until it is short enough to be ranked.
int32_t Sampler::KeepTopP(const float* logits, double wanted, int32_t n) {
  const RankedBefore before{logits};
  int32_t begin = 0, end = n;
  double sum = 0;  // of ids_[0, begin), which are in the prefix
  constexpr int32_t kShort = 32;
  while (end - begin > kShort) {
    int32_t* const first = ids_ + begin;
    std::swap(*first, *MiddleOf(first, first + (end - begin) / 2, ids_ + end - 1, before));
    const int32_t pivot = *first;
    int32_t past = begin + 1;  // of what is ranked before the pivot
    double front = 0;
    for (int32_t i = begin + 1; i < end; ++i) {
      const int32_t id = ids_[i];
      const bool is_front = before(id, pivot);
      ids_[i] = ids_[past];
      ids_[past] = id;
      past += is_front;
      front += is_front * probs_[id];
    }
    std::swap(*first, ids_[past - 1]);
    if (sum + front >= wanted) {
      end = past - 1;
      continue;
    }
    sum += front + probs_[pivot];
    if (sum >= wanted) return past;
    begin = past;
  }
  std::sort(ids_ + begin, ids_ + end, before);
  while (begin < end && sum < wanted) sum += probs_[ids_[begin++]];
  return begin;
}

}  // namespace dovetail::worker
