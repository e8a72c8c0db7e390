#include "coordinator/http/openai_request.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/http/json_reader.h"
#include "coordinator/http/openai_messages.h"
#include "coordinator/http/openai_sampling.h"
#include "coordinator/http/openai_tools.h"
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

// One generation per choice: those of the first prompt, then those of the second.
MaybeError RepeatForChoices(OpenAiRequest* request) {
  const size_t per_prompt = static_cast<size_t>(request->choices_per_prompt);
  const size_t total = request->generations.size() * per_prompt;
  if (total > kMaxGenerations) {
    return InvalidField("n", absl::StrCat("`n` times the number of prompts may be at most ",
                                          kMaxGenerations, ", got ", total));
  }
  std::vector<GenerationRequest> prompts = std::exchange(request->generations, {});
  for (const GenerationRequest& prompt : prompts) {
    for (size_t choice = 0; choice < per_prompt; ++choice) {
      request->generations.push_back(prompt);
      request->generations.back().choice = static_cast<uint32_t>(choice);
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
  if (MaybeError error = ReadSampling(endpoint, body, &common, &request->choices_per_prompt)) {
    return error;
  }
  if (MaybeError error = ReadStreaming(body, request)) return error;
  if (MaybeError error = ReadFormat(body, &common.format)) return error;
  if (endpoint == OpenAiEndpoint::kCompletion) {
    KeepMemberOrder(text, &common);
    if (MaybeError error = ReadPrompt(body, common, request)) return error;
  } else {
    std::vector<ChatMessage> messages;
    if (MaybeError error = ReadMessages(body, &messages)) return error;
    if (MaybeError error = ReadTools(body, &common.chat)) return error;
    if (MaybeError error = ReadTemplateArguments(body, &common.chat)) return error;
    KeepMemberOrder(text, &common);
    common.input = std::move(messages);
    request->generations.push_back(std::move(common));
  }
  return RepeatForChoices(request);
}

}  // namespace dovetail::coordinator
