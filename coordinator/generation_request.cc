#include "coordinator/generation_request.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr float kMaxBias = 100;
constexpr int64_t kMaxPriority = 100;  // and -100; waiting makes up for it in time

// Above `lowest` where it is not allowed itself.
struct FloatRange {
  float lowest, highest;
  bool lowest_allowed = true;
};

absl::Status CheckRange(absl::string_view field, const std::optional<float>& value,
                        const FloatRange& range) {
  if (!value.has_value()) return absl::OkStatus();
  const bool high_enough = range.lowest_allowed ? *value >= range.lowest : *value > range.lowest;
  if (high_enough && *value <= range.highest) return absl::OkStatus();  // false for NaN
  return FieldError(
      field, absl::StrCat("must be ", range.lowest_allowed ? "at least " : "above ", range.lowest,
                          " and at most ", range.highest, ", got ", *value));
}

absl::Status CheckInt(absl::string_view field, const std::optional<int64_t>& value, int64_t lowest,
                      int64_t highest) {
  if (!value.has_value() || (*value >= lowest && *value <= highest)) return absl::OkStatus();
  if (*value < lowest) {
    return FieldError(field, absl::StrCat("must be at least ", lowest, ", got ", *value));
  }
  return FieldError(field, absl::StrCat("must be at most ", highest, ", got ", *value));
}

absl::Status CheckToken(absl::string_view field, int32_t token, int vocab_size) {
  if (token >= 0 && token < vocab_size) return absl::OkStatus();
  return FieldError(field, absl::StrCat("has token id ", token, "; the vocabulary has ids 0 to ",
                                        vocab_size - 1));
}

absl::Status CheckStops(const GenerationRequest& request, int vocab_size) {
  if (request.stop.size() > kMaxStops) {
    return FieldError("stop", absl::StrCat("may have at most ", kMaxStops, " strings, got ",
                                           request.stop.size()));
  }
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return FieldError("stop", "must not contain an empty string");
    if (stop.size() > kMaxStopBytes) {
      return FieldError("stop", absl::StrCat("strings may have at most ", kMaxStopBytes,
                                             " bytes, got one of ", stop.size()));
    }
  }
  if (request.stop_token_ids.size() > kMaxStops) {
    return FieldError("stop_token_ids", absl::StrCat("may have at most ", kMaxStops, " ids, got ",
                                                     request.stop_token_ids.size()));
  }
  for (int32_t token : request.stop_token_ids) {
    DT_RETURN_IF_ERROR(CheckToken("stop_token_ids", token, vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckAdjustments(const GenerationRequest& request, int vocab_size,
                              AdjustmentOptions* options) {
  DT_RETURN_IF_ERROR(CheckRange("presence_penalty", request.presence_penalty, {-2, 2}));
  DT_RETURN_IF_ERROR(CheckRange("frequency_penalty", request.frequency_penalty, {-2, 2}));
  DT_RETURN_IF_ERROR(CheckRange("repetition_penalty", request.repetition_penalty, {0, 10, false}));
  DT_RETURN_IF_ERROR(CheckInt("min_tokens", request.min_tokens, 0, INT32_MAX));
  if (request.logit_bias.size() > AdjustmentOptions::kMaxBiases) {
    return FieldError("logit_bias", absl::StrCat("may have at most ", AdjustmentOptions::kMaxBiases,
                                                 " tokens, got ", request.logit_bias.size()));
  }
  for (const auto& [token, bias] : request.logit_bias) {
    DT_RETURN_IF_ERROR(CheckToken("logit_bias", token, vocab_size));
    DT_RETURN_IF_ERROR(CheckRange("logit_bias", bias, {-kMaxBias, kMaxBias}));
  }
  options->logit_bias = request.logit_bias;
  options->presence_penalty = request.presence_penalty.value_or(0.0f);
  options->frequency_penalty = request.frequency_penalty.value_or(0.0f);
  options->repetition_penalty = request.repetition_penalty.value_or(1.0f);
  options->min_tokens = static_cast<int>(request.min_tokens.value_or(0));
  return absl::OkStatus();
}

absl::Status CheckSampling(const GenerationRequest& request, SamplingParams* sampling) {
  DT_RETURN_IF_ERROR(CheckRange("temperature", request.temperature, {0, 2}));
  DT_RETURN_IF_ERROR(CheckRange("top_p", request.top_p, {0, 1, false}));
  DT_RETURN_IF_ERROR(CheckRange("min_p", request.min_p, {0, 1}));
  const int64_t top_k = request.top_k.value_or(0);
  // -1 is how some clients say "off".
  if (top_k < -1 || top_k > INT32_MAX) {
    return FieldError("top_k", absl::StrCat("must be at least 0, got ", top_k));
  }
  sampling->temperature = request.temperature.value_or(1.0f);
  sampling->top_p = request.top_p.value_or(1.0f);
  sampling->min_p = request.min_p.value_or(0.0f);
  sampling->top_k = static_cast<int32_t>(std::max<int64_t>(0, top_k));
  sampling->choice = request.choice;
  if (request.seed.has_value()) {
    sampling->seed = *request.seed;
  } else {
    std::random_device entropy;
    sampling->seed = uint64_t{entropy()} << 32 | entropy();
  }
  return absl::OkStatus();
}

}  // namespace

void AnswerDelta::Add(const AnswerDelta& delta) {
  text += delta.text;
  reasoning += delta.reasoning;
  details.insert(details.end(), delta.details.begin(), delta.details.end());
  for (const ToolCallDelta& call : delta.tool_calls) {
    const bool known = !tool_calls.empty() && tool_calls.back().index == call.index;
    if (known) {
      tool_calls.back().arguments += call.arguments;
    } else {
      tool_calls.push_back(call);
    }
  }
}

absl::Status FieldError(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("`", field, "` ", problem));
}

absl::Status NameField(const absl::Status& status, absl::string_view field) {
  if (status.code() != absl::StatusCode::kInvalidArgument) return status;
  return absl::InvalidArgumentError(absl::StrCat("`", field, "`: ", status.message()));
}

absl::Status CheckRequest(const GenerationRequest& request, int vocab_size, EngineRequest* engine) {
  DT_RETURN_IF_ERROR(CheckSampling(request, &engine->sampling));
  DT_RETURN_IF_ERROR(CheckAdjustments(request, vocab_size, &engine->adjustments));
  DT_RETURN_IF_ERROR(CheckStops(request, vocab_size));
  DT_RETURN_IF_ERROR(CheckInt("priority", request.priority, -kMaxPriority, kMaxPriority));
  DT_RETURN_IF_ERROR(CheckInt("logprobs", request.logprobs, 0, kMaxTopLogprobs));
  DT_RETURN_IF_ERROR(CheckInt("max_tokens", request.max_tokens, request.echo ? 0 : 1, INT64_MAX));
  engine->end_tokens = request.stop_token_ids;
  if (request.logprobs.has_value()) {
    engine->num_top_logprobs = static_cast<int>(*request.logprobs);
  }
  // Without logprobs an echo needs nothing of the prompt but its text; without an answer there
  // would be nothing to compute at all, and the engine wants something.
  engine->logits = request.echo && (request.logprobs.has_value() || request.max_tokens == 0);
  if (engine->logits) engine->num_top_logprobs = std::max(engine->num_top_logprobs, 0);
  engine->cache_salt = request.cache_salt;
  engine->priority = static_cast<int>(request.priority.value_or(0));
  engine->deadline = request.deadline;
  return absl::OkStatus();
}

}  // namespace dovetail::coordinator
