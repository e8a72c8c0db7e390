#include "coordinator/http/openai_encoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

// Texts come from the detokenizer and the parsed request, which are UTF-8; should a byte slip
// through, the client gets U+FFFD and not a broken stream.
std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string DataEvent(const std::string& body) { return absl::StrCat("data: ", body, "\n\n"); }

const char* FinishReasonName(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

Json UsageJson(const RequestUsage& usage) {
  Json json;
  json["prompt_tokens"] = usage.prompt_tokens;
  json["completion_tokens"] = usage.completion_tokens;
  json["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  json["prompt_tokens_details"]["cached_tokens"] = usage.cached_tokens;
  json["completion_tokens_details"]["reasoning_tokens"] = 0;
  return json;
}

Json ModelJson(absl::string_view model, int64_t created, int context_length) {
  Json json;
  json["id"] = std::string(model);
  json["object"] = "model";
  json["created"] = created;
  json["owned_by"] = "dovetail";
  if (context_length > 0) json["max_model_len"] = context_length;
  return json;
}

}  // namespace

OpenAiEncoder::OpenAiEncoder(AnswerIdentity identity) : identity_(std::move(identity)) {}

// All roles at once and in order: a client library takes the first chunk that it sees for choice 0.
std::string OpenAiEncoder::Begin(int num_choices, const RequestUsage&) {
  std::string events;
  for (int i = 0; i < num_choices; ++i) absl::StrAppend(&events, RoleEvent(i));
  return events;
}

std::string OpenAiEncoder::Event(int choice, const GenerationEvent& event) {
  std::string events;
  if (!event.text.empty()) events = TextEvent(choice, event.text);
  if (event.finished) absl::StrAppend(&events, FinishEvent(choice, event.reason));
  return events;
}

std::string OpenAiEncoder::End(const AnswerTotals& totals) {
  return absl::StrCat(identity_.include_usage ? UsageEvent(totals.usage) : "", kSseDone);
}

HttpResponse OpenAiEncoder::Whole(absl::Span<const CompletedChoice> choices,
                                  const AnswerTotals& totals) {
  HttpResponse response = JsonResponse(200, Completion(choices, totals.usage));
  response.headers.emplace_back("openai-processing-ms",
                                absl::StrCat(absl::ToInt64Milliseconds(totals.taken)));
  return response;
}

Json OpenAiEncoder::Head(absl::string_view object) const {
  Json json;
  json["id"] = identity_.id;
  json["object"] = std::string(object);
  json["created"] = identity_.created;
  json["model"] = identity_.model;
  json["system_fingerprint"] = identity_.system_fingerprint;
  json["choices"] = Json::array();
  return json;
}

std::string OpenAiEncoder::Completion(absl::Span<const CompletedChoice> choices,
                                      const RequestUsage& usage) const {
  const bool chat = identity_.endpoint == OpenAiEndpoint::kChat;
  Json json = Head(chat ? "chat.completion" : "text_completion");
  for (size_t i = 0; i < choices.size(); ++i) {
    Json choice;
    choice["index"] = i;
    if (chat) {
      choice["message"]["role"] = "assistant";
      choice["message"]["content"] = choices[i].text;
      choice["message"]["refusal"] = nullptr;
    } else {
      choice["text"] = choices[i].text;
    }
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = FinishReasonName(choices[i].reason);
    json["choices"].push_back(std::move(choice));
  }
  json["usage"] = UsageJson(usage);
  return Dump(json);
}

std::string OpenAiEncoder::ChunkEvent(int index, absl::string_view role,
                                      const absl::string_view* text,
                                      const char* finish_reason) const {
  const bool chat = identity_.endpoint == OpenAiEndpoint::kChat;
  Json choice;
  choice["index"] = index;
  if (chat) {
    Json delta = Json::object();
    if (!role.empty()) delta["role"] = std::string(role);
    if (text != nullptr) delta["content"] = std::string(*text);
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = text != nullptr ? std::string(*text) : "";
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = finish_reason != nullptr ? Json(finish_reason) : Json(nullptr);
  Json json = Head(chat ? "chat.completion.chunk" : "text_completion");
  json["choices"].push_back(std::move(choice));
  if (identity_.include_usage) json["usage"] = nullptr;
  return DataEvent(Dump(json));
}

std::string OpenAiEncoder::RoleEvent(int index) const {
  if (identity_.endpoint != OpenAiEndpoint::kChat) return "";
  const absl::string_view empty;
  return ChunkEvent(index, "assistant", &empty, nullptr);
}

std::string OpenAiEncoder::TextEvent(int index, absl::string_view text) const {
  return ChunkEvent(index, "", &text, nullptr);
}

std::string OpenAiEncoder::FinishEvent(int index, FinishReason reason) const {
  return ChunkEvent(index, "", nullptr, FinishReasonName(reason));
}

std::string OpenAiEncoder::UsageEvent(const RequestUsage& usage) const {
  const bool chat = identity_.endpoint == OpenAiEndpoint::kChat;
  Json json = Head(chat ? "chat.completion.chunk" : "text_completion");
  json["usage"] = UsageJson(usage);
  return DataEvent(Dump(json));
}

std::string OpenAiEncoder::ErrorEvent(const ApiError& error) { return DataEvent(ErrorBody(error)); }

std::string ModelListBody(absl::string_view model, int64_t created, int context_length) {
  Json json;
  json["object"] = "list";
  json["data"] = Json::array({ModelJson(model, created, context_length)});
  return Dump(json);
}

std::string ModelBody(absl::string_view model, int64_t created, int context_length) {
  return Dump(ModelJson(model, created, context_length));
}

}  // namespace dovetail::coordinator
