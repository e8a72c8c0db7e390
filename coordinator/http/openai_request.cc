#include "coordinator/http/openai_request.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/http/json_reader.h"
#include "coordinator/http/openai_messages.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

// Known fields are honoured or refused before anything else is read, so that a client learns first
// of what it cannot have.
MaybeError CheckFields(OpenAiEndpoint endpoint, const Json& body, OpenAiRequest* request) {
  for (const auto& [name, value] : body.items()) {
    switch (FateOf(endpoint, name)) {
      case FieldFate::kRefused:
        if (MaybeError error = RefuseUnlessHarmless(endpoint, name, value)) return error;
        break;
      case FieldFate::kUnknown:
        request->unknown_fields.push_back(name);
        break;
      case FieldFate::kHonoured:
      case FieldFate::kIgnored:
        break;
    }
  }
  return std::nullopt;
}

MaybeError ReadMaxTokens(OpenAiEndpoint endpoint, const Json& body, GenerationRequest* common) {
  // The newer name wins where both are given.
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    if (FateOf(endpoint, name) != FieldFate::kHonoured) continue;
    std::optional<int64_t> value;
    if (MaybeError error = ReadInt(body, name, &value)) return error;
    if (!value.has_value()) continue;
    if (*value < 1) {
      return InvalidField(name, absl::StrCat("`", name, "` must be at least 1, got ", *value));
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

MaybeError ReadSampling(const Json& body, GenerationRequest* common) {
  if (MaybeError error = ReadFloat(body, "temperature", &common->temperature)) return error;
  if (MaybeError error = ReadFloat(body, "top_p", &common->top_p)) return error;
  if (MaybeError error = ReadFloat(body, "min_p", &common->min_p)) return error;
  if (MaybeError error = ReadInt(body, "top_k", &common->top_k)) return error;
  if (MaybeError error = ReadSeed(body, "seed", &common->seed)) return error;
  if (MaybeError error = ReadBool(body, "ignore_eos", &common->ignore_eos)) return error;
  return ReadStop(body, &common->stop);
}

MaybeError ReadStreaming(const Json& body, OpenAiRequest* request) {
  if (MaybeError error = ReadBool(body, "stream", &request->stream)) return error;
  const Json* options = FindMember(body, "stream_options");
  if (options == nullptr) return std::nullopt;
  if (!options->is_object()) return WrongType("stream_options", "an object", *options);
  if (!request->stream) {
    return InvalidField("stream_options", "`stream_options` is only allowed with `stream`: true");
  }
  const Json* continuous = FindMember(*options, "continuous_usage_stats");
  if (continuous != nullptr && *continuous != false) {
    return UnsupportedField("stream_options.continuous_usage_stats",
                            "`stream_options.continuous_usage_stats` is not supported; leave it "
                            "out or set it to false");
  }
  if (MaybeError error = ReadBool(*options, "include_usage", &request->include_usage)) {
    error->param = "stream_options.include_usage";
    return error;
  }
  return std::nullopt;
}

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

// One element of an array of prompts.
MaybeError ReadPromptItem(const Json& item, absl::string_view name, GenerationRequest* generation) {
  if (item.is_string()) {
    generation->input = item.get<std::string>();
    return std::nullopt;
  }
  if (!item.is_array()) return WrongType(name, "a string or an array of token ids", item);
  std::vector<int32_t> ids;
  if (MaybeError error = ReadTokenIds(item, name, &ids)) return error;
  generation->input = std::move(ids);
  return std::nullopt;
}

MaybeError ReadPrompt(const Json& body, const GenerationRequest& common, OpenAiRequest* request) {
  const Json* prompt = FindMember(body, "prompt");
  if (prompt == nullptr) return InvalidField("prompt", "`prompt` is required");
  const bool many = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  if (!many) {
    if (!prompt->is_string() && !prompt->is_array()) {
      return WrongType("prompt", "a string, an array of strings or an array of token ids", *prompt);
    }
    request->generations.push_back(common);
    return ReadPromptItem(*prompt, "prompt", &request->generations.back());
  }
  if (prompt->size() > kMaxPrompts) {
    return InvalidField("prompt", absl::StrCat("`prompt` may have at most ", kMaxPrompts,
                                               " prompts, got ", prompt->size()));
  }
  for (size_t i = 0; i < prompt->size(); ++i) {
    request->generations.push_back(common);
    if (MaybeError error = ReadPromptItem((*prompt)[i], absl::StrCat("prompt[", i, "]"),
                                          &request->generations.back())) {
      return error;
    }
  }
  return std::nullopt;
}

}  // namespace

MaybeError ParseOpenAiRequest(OpenAiEndpoint endpoint, absl::string_view text,
                              OpenAiRequest* request) {
  *request = OpenAiRequest();
  Json body;
  if (MaybeError error = ParseJson(text, kMaxJsonDepth, &body)) return error;
  if (!body.is_object()) return InvalidField("", "the request body must be a JSON object");
  if (MaybeError error = CheckFields(endpoint, body, request)) return error;

  GenerationRequest common;
  if (MaybeError error = ReadString(body, "model", &request->model)) return error;
  if (MaybeError error = ReadMaxTokens(endpoint, body, &common)) return error;
  if (MaybeError error = ReadSampling(body, &common)) return error;
  if (MaybeError error = ReadStreaming(body, request)) return error;
  if (endpoint == OpenAiEndpoint::kCompletion) return ReadPrompt(body, common, request);

  std::vector<ChatMessage> messages;
  if (MaybeError error = ReadMessages(body, &messages)) return error;
  common.input = std::move(messages);
  request->generations.push_back(std::move(common));
  return std::nullopt;
}

}  // namespace dovetail::coordinator
