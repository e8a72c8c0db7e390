#include "coordinator/new_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::coordinator {
namespace {

absl::Status CheckPrompt(const EngineOptions& options, const EngineRequest& request) {
  if (request.prompt.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
  const bool generates = !request.logits && !request.hidden;
  if (request.max_tokens < 0 || (request.max_tokens == 0 && generates)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens must be at least 1, got ", request.max_tokens));
  }
  for (int32_t token : request.prompt) {
    if (token >= 0 && token < options.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "token id ", token, " is outside of the vocabulary of ", options.vocab_size, " tokens"));
  }
  return absl::OkStatus();
}

absl::Status CheckDraw(const EngineOptions& options, const EngineRequest& request) {
  if (request.num_top_logprobs < -1 || request.num_top_logprobs > kMaxTopLogprobs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "at most ", kMaxTopLogprobs, " logprobs can be had, not ", request.num_top_logprobs));
  }
  if (request.adjustments.logit_bias.size() > AdjustmentOptions::kMaxBiases ||
      request.end_tokens.size() > AdjustmentOptions::kMaxEndTokens) {
    return absl::InvalidArgumentError("too many biases or end tokens");
  }
  if (request.hidden && (request.max_tokens > 0 || request.num_top_logprobs >= 0 ||
                         request.adjustments.any() || request.constraint != nullptr)) {
    return absl::InvalidArgumentError("nothing is generated where hidden states are asked for");
  }
  if (request.constraint != nullptr && options.shape.vocab_size == 0) {
    return absl::InvalidArgumentError("the workers take no masks");
  }
  for (const auto& [token, bias] : request.adjustments.logit_bias) {
    if (token >= 0 && token < options.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat("the biased token id ", token,
                                                   " is outside of the vocabulary of ",
                                                   options.vocab_size, " tokens"));
  }
  return absl::OkStatus();
}

// That of the request and of its tenant together.
absl::StatusOr<int> PriorityOf(const EngineOptions& options, const EngineRequest& request) {
  if (options.tenant_priority.empty()) return request.priority;
  if (request.priority < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`priority` must be at least 0 where API keys have priorities, got ", request.priority));
  }
  const auto it = options.tenant_priority.find(request.tenant);
  return request.priority + (it == options.tenant_priority.end() ? 0 : it->second);
}

}  // namespace

absl::StatusOr<NewRequest> MakeRequest(const EngineOptions& options, const Scheduler& scheduler,
                                       EngineRequest request, std::shared_ptr<TokenSink> sink) {
  if (absl::Status valid = CheckPrompt(options, request); !valid.ok()) return valid;
  if (absl::Status valid = CheckDraw(options, request); !valid.ok()) return valid;
  DT_ASSIGN_OR_RETURN(const int priority, PriorityOf(options, request));
  const int num_prompt = static_cast<int>(std::min<size_t>(request.prompt.size(), INT32_MAX / 2));
  if (absl::Status fits = scheduler.CheckFits(num_prompt, request.max_tokens); !fits.ok()) {
    return fits;
  }
  NewRequest result;
  result.sequence = std::make_unique<Sequence>();
  Sequence& sequence = *result.sequence;
  sequence.sampling = request.sampling;
  sequence.num_prompt_tokens = num_prompt;
  sequence.max_total_tokens = scheduler.MaxTotalTokens(num_prompt, request.max_tokens);
  sequence.wants_logits = request.logits || request.hidden;
  sequence.wants_hidden = request.hidden;
  if (request.hidden && !request.logits) sequence.num_logit_rows_sent = num_prompt - 1;
  sequence.num_top_logprobs = request.num_top_logprobs;
  if (request.adjustments.any()) {
    if (request.logits && request.num_top_logprobs < 0) {
      return absl::InvalidArgumentError("logits cannot be had together with adjustments");
    }
    request.adjustments.end_tokens = request.end_tokens;
    sequence.adjustments = std::make_unique<LogitAdjustments>(
        std::move(request.adjustments), num_prompt, sequence.max_total_tokens);
  }
  sequence.salt = MakeCacheSalt(request.cache_salt);
  sequence.tenant_name = std::move(request.tenant);
  sequence.priority = priority;
  sequence.tokens = std::move(request.prompt);
  sequence.tokens.reserve(sequence.max_total_tokens);
  result.sink = std::move(sink);
  result.end_tokens = std::move(request.end_tokens);
  result.constraint = std::move(request.constraint);
  result.deadline = request.deadline;
  return result;
}

}  // namespace dovetail::coordinator
