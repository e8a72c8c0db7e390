#include "coordinator/http/openai_sampling.h"

#include <limits>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

MaybeError ReadMaxTokens(OpenAiEndpoint endpoint, const Json& body, GenerationRequest* common) {
  // The newer name wins where both are given.
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    if (FateOf(endpoint, name) != FieldFate::kHonoured) continue;
    std::optional<int64_t> value;
    if (MaybeError error = ReadInt(body, name, &value)) return error;
    if (!value.has_value()) continue;
    const int least = common->echo ? 0 : 1;
    if (*value < least) {
      return InvalidField(name,
                          absl::StrCat("`", name, "` must be at least ", least, ", got ", *value));
    }
    common->max_tokens = value;
  }
  if (endpoint == OpenAiEndpoint::kCompletion && !common->max_tokens.has_value()) {
    common->max_tokens = kDefaultCompletionMaxTokens;
  }
  return std::nullopt;
}

MaybeError ReadStop(const Json& body, std::vector<std::string>* stop) {
  const Json* value = FindMember(body, "stop");
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) {
    stop->push_back(value->get<std::string>());
    return std::nullopt;
  }
  if (!value->is_array()) return WrongType("stop", "a string or an array of strings", *value);
  for (size_t i = 0; i < value->size(); ++i) {
    const Json& item = (*value)[i];
    if (!item.is_string()) return WrongType(absl::StrCat("stop[", i, "]"), "a string", item);
    stop->push_back(item.get<std::string>());
  }
  return std::nullopt;
}

MaybeError ReadDraw(const Json& body, GenerationRequest* common) {
  if (MaybeError error = ReadFloat(body, "temperature", &common->temperature)) return error;
  if (MaybeError error = ReadFloat(body, "top_p", &common->top_p)) return error;
  if (MaybeError error = ReadFloat(body, "min_p", &common->min_p)) return error;
  if (MaybeError error = ReadInt(body, "top_k", &common->top_k)) return error;
  if (MaybeError error = ReadSeed(body, "seed", &common->seed)) return error;
  if (MaybeError error = ReadBool(body, "ignore_eos", &common->ignore_eos)) return error;
  if (MaybeError error = ReadInt(body, "min_tokens", &common->min_tokens)) return error;
  if (const Json* ids = FindMember(body, "stop_token_ids"); ids != nullptr) {
    if (!ids->is_array()) return WrongType("stop_token_ids", "an array of token ids", *ids);
    if (MaybeError error = ReadTokenIds(*ids, "stop_token_ids", &common->stop_token_ids)) {
      return error;
    }
  }
  return ReadStop(body, &common->stop);
}

MaybeError ReadPenalties(const Json& body, GenerationRequest* common) {
  for (const auto& [name, out] : {std::pair{"presence_penalty", &common->presence_penalty},
                                  {"frequency_penalty", &common->frequency_penalty},
                                  {"repeat_penalty", &common->repetition_penalty},
                                  {"repetition_penalty", &common->repetition_penalty}}) {
    if (MaybeError error = ReadFloat(body, name, out)) return error;
  }
  const Json* biases = FindMember(body, "logit_bias");
  if (biases == nullptr) return std::nullopt;
  if (!biases->is_object()) {
    return WrongType("logit_bias", "an object from token ids to numbers", *biases);
  }
  for (const auto& [key, value] : biases->items()) {
    int32_t token = 0;
    const std::string name = absl::StrCat("logit_bias.", key);
    if (!absl::SimpleAtoi(key, &token)) {
      return InvalidField("logit_bias", "`logit_bias` must have token ids as its keys");
    }
    if (!value.is_number()) return WrongType(name, "a number", value);
    std::optional<float> bias;
    if (MaybeError error = ReadFloat(*biases, key, &bias)) return error;
    common->logit_bias.emplace_back(token, *bias);
  }
  return std::nullopt;
}

// A number for completions, a switch and a number for chats.
MaybeError ReadLogprobs(OpenAiEndpoint endpoint, const Json& body, GenerationRequest* common) {
  if (endpoint == OpenAiEndpoint::kCompletion) {
    return ReadInt(body, "logprobs", &common->logprobs);
  }
  bool wanted = false;
  std::optional<int64_t> top;
  if (MaybeError error = ReadBool(body, "logprobs", &wanted)) return error;
  if (MaybeError error = ReadInt(body, "top_logprobs", &top)) return error;
  if (top.has_value() && (*top < 0 || *top > kMaxTopLogprobs)) {
    return InvalidField("top_logprobs",
                        absl::StrCat("`top_logprobs` must be at least 0 and at most ",
                                     kMaxTopLogprobs, ", got ", *top));
  }
  if (top.value_or(0) > 0 && !wanted) {
    return InvalidField("top_logprobs", "`top_logprobs` is only allowed with `logprobs`: true");
  }
  if (wanted) common->logprobs = top.value_or(0);
  return std::nullopt;
}

MaybeError ReadChoices(const Json& body, int* n) {
  std::optional<int64_t> value;
  if (MaybeError error = ReadInt(body, "n", &value)) return error;
  if (value.has_value() && (*value < 1 || *value > kMaxChoices)) {
    return InvalidField(
        "n", absl::StrCat("`n` must be at least 1 and at most ", kMaxChoices, ", got ", *value));
  }
  *n = static_cast<int>(value.value_or(1));
  std::optional<int64_t> best_of;
  if (MaybeError error = ReadInt(body, "best_of", &best_of)) return error;
  if (best_of.has_value() && *best_of != *n) {
    return UnsupportedField("best_of", "`best_of` is not supported; leave it out or set it to `n`");
  }
  return std::nullopt;
}

}  // namespace

MaybeError ReadTokenIds(const Json& array, absl::string_view name, std::vector<int32_t>* ids) {
  ids->reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    const Json& item = array[i];
    const bool fits =
        item.is_number_unsigned() &&
        item.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int32_t>::max());
    if (!fits) {
      return InvalidField(name, absl::StrCat("`", name, "[", i, "]` must be a token id"));
    }
    ids->push_back(item.get<int32_t>());
  }
  return std::nullopt;
}

MaybeError ReadSampling(OpenAiEndpoint endpoint, const Json& body, GenerationRequest* request,
                        int* n) {
  if (endpoint == OpenAiEndpoint::kCompletion) {
    if (MaybeError error = ReadBool(body, "echo", &request->echo)) return error;
  }
  if (MaybeError error = ReadMaxTokens(endpoint, body, request)) return error;
  if (MaybeError error = ReadDraw(body, request)) return error;
  if (MaybeError error = ReadPenalties(body, request)) return error;
  if (MaybeError error = ReadString(body, "cache_salt", &request->cache_salt)) return error;
  if (MaybeError error = ReadInt(body, "priority", &request->priority)) return error;
  if (MaybeError error = ReadLogprobs(endpoint, body, request)) return error;
  return ReadChoices(body, n);
}

}  // namespace dovetail::coordinator
