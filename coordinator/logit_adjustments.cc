#include "coordinator/logit_adjustments.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace dovetail::coordinator {

LogitAdjustments::LogitAdjustments(AdjustmentOptions options, int num_prompt_tokens,
                                   int max_total_tokens)
    : options_(std::move(options)), num_prompt_tokens_(num_prompt_tokens) {
  DT_CHECK_LE(options_.logit_bias.size(), size_t{AdjustmentOptions::kMaxBiases});
  DT_CHECK_LE(options_.end_tokens.size(), size_t{AdjustmentOptions::kMaxEndTokens});
  entries_.reserve(options_.logit_bias.size() + static_cast<size_t>(max_total_tokens));
  for (const auto& [token, bias] : options_.logit_bias) EntryOf(token).bias += bias;
}

LogitAdjustments::Entry& LogitAdjustments::EntryOf(int32_t token) {
  const auto it = std::lower_bound(entries_.begin(), entries_.end(), token,
                                   [](const Entry& e, int32_t t) { return e.token < t; });
  if (it != entries_.end() && it->token == token) return *it;
  return *entries_.insert(it, {.token = token, .bias = 0, .seen = false, .generated = 0});
}

void LogitAdjustments::Take(absl::Span<const int32_t> tokens) {
  const int num_tokens = static_cast<int>(tokens.size());
  const bool counts_answer = options_.presence_penalty != 0 || options_.frequency_penalty != 0;
  for (; num_taken_ < num_tokens; ++num_taken_) {
    const bool in_answer = num_taken_ >= num_prompt_tokens_;
    if (options_.repetition_penalty == 1.0f && !(in_answer && counts_answer)) continue;
    Entry& entry = EntryOf(tokens[static_cast<size_t>(num_taken_)]);
    entry.seen = true;
    if (in_answer) ++entry.generated;
  }
}

int LogitAdjustments::Append(absl::Span<const int32_t> tokens, std::vector<LogitAdjustment>* out) {
  const size_t before = out->size();
  Take(tokens);
  for (const Entry& entry : entries_) {
    LogitAdjustment adjustment = {.token = entry.token, .bias = entry.bias};
    if (entry.seen) adjustment.scale = options_.repetition_penalty;
    if (entry.generated > 0) {
      adjustment.bias -= options_.presence_penalty +
                         options_.frequency_penalty * static_cast<float>(entry.generated);
    }
    out->push_back(adjustment);
  }
  if (static_cast<int>(tokens.size()) - num_prompt_tokens_ < options_.min_tokens) {
    for (int32_t token : options_.end_tokens) {
      out->push_back({.token = token, .bias = -std::numeric_limits<float>::infinity()});
    }
  }
  return static_cast<int>(out->size() - before);
}

}  // namespace dovetail::coordinator
