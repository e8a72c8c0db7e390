#include "coordinator/http/openai_encoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/http/openai_logprobs.h"
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
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kToolCalls:
      return "tool_calls";
    default:
      return "stop";
  }
}

// Id, type and name come once: a client library adds strings up.
Json ToolCallDeltas(absl::Span<const ToolCallDelta> calls) {
  Json json = Json::array();
  for (const ToolCallDelta& call : calls) {
    Json entry;
    entry["index"] = call.index;
    if (!call.id.empty()) {
      entry["id"] = call.id;
      entry["type"] = "function";
      entry["function"]["name"] = call.name;
    }
    entry["function"]["arguments"] = call.arguments;
    json.push_back(std::move(entry));
  }
  return json;
}

Json MessageJson(const AnswerDelta& answer) {
  Json json;
  json["role"] = "assistant";
  const bool only_calls = answer.text.empty() && !answer.tool_calls.empty();
  json["content"] = only_calls ? Json(nullptr) : Json(answer.text);
  json["refusal"] = nullptr;
  if (!answer.reasoning.empty()) json["reasoning_content"] = answer.reasoning;
  for (const ToolCallDelta& call : answer.tool_calls) {
    Json entry;
    entry["id"] = call.id;
    entry["type"] = "function";
    entry["function"]["name"] = call.name;
    entry["function"]["arguments"] = call.arguments;
    json["tool_calls"].push_back(std::move(entry));
  }
  return json;
}

Json UsageJson(const RequestUsage& usage) {
  Json json;
  json["prompt_tokens"] = usage.prompt_tokens;
  json["completion_tokens"] = usage.completion_tokens;
  json["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  json["prompt_tokens_details"]["cached_tokens"] = usage.cached_tokens;
  json["completion_tokens_details"]["reasoning_tokens"] = usage.reasoning_tokens;
  return json;
}

Json ModelJson(const ModelEntry& model) {
  Json json;
  json["id"] = model.name;
  json["object"] = "model";
  json["created"] = model.created;
  json["owned_by"] = "dovetail";
  if (model.context_length > 0) json["max_model_len"] = model.context_length;
  return json;
}

}  // namespace

OpenAiEncoder::OpenAiEncoder(AnswerIdentity identity) : identity_(std::move(identity)) {}

// All roles at once and in order: a client library takes the first chunk that it sees for choice 0.
std::string OpenAiEncoder::Begin(int num_choices, const RequestUsage&) {
  std::string events;
  text_offsets_.resize(static_cast<size_t>(num_choices));
  for (int i = 0; i < num_choices; ++i) absl::StrAppend(&events, RoleEvent(i));
  return events;
}

std::string OpenAiEncoder::Event(int choice, const GenerationEvent& event) {
  std::string events;
  if (!event.empty())
    events = DeltaEvent(choice, event, &text_offsets_[static_cast<size_t>(choice)]);
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

Json OpenAiEncoder::Logprobs(const AnswerDelta& answer, int* text_offset) const {
  if (!identity_.logprobs) return nullptr;
  return identity_.endpoint == OpenAiEndpoint::kChat
             ? ChatLogprobs(answer.details)
             : CompletionLogprobs(answer.details, text_offset);
}

std::string OpenAiEncoder::Completion(absl::Span<const CompletedChoice> choices,
                                      const RequestUsage& usage) const {
  const bool chat = identity_.endpoint == OpenAiEndpoint::kChat;
  Json json = Head(chat ? "chat.completion" : "text_completion");
  for (size_t i = 0; i < choices.size(); ++i) {
    const AnswerDelta& answer = choices[i].answer;
    Json choice;
    choice["index"] = i;
    if (chat) {
      choice["message"] = MessageJson(answer);
    } else {
      choice["text"] = answer.text;
    }
    int text_offset = 0;
    choice["logprobs"] = Logprobs(answer, &text_offset);
    choice["finish_reason"] = FinishReasonName(choices[i].reason);
    json["choices"].push_back(std::move(choice));
  }
  json["usage"] = UsageJson(usage);
  return Dump(json);
}

// `delta` is the delta of a chat, or {"text":...} of a completion.
std::string OpenAiEncoder::ChunkEvent(int index, Json delta, Json logprobs,
                                      const char* finish_reason) const {
  const bool chat = identity_.endpoint == OpenAiEndpoint::kChat;
  Json choice;
  choice["index"] = index;
  if (chat) {
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = delta.contains("text") ? std::move(delta["text"]) : Json("");
  }
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = finish_reason != nullptr ? Json(finish_reason) : Json(nullptr);
  Json json = Head(chat ? "chat.completion.chunk" : "text_completion");
  json["choices"].push_back(std::move(choice));
  if (identity_.include_usage) json["usage"] = nullptr;
  return DataEvent(Dump(json));
}

std::string OpenAiEncoder::RoleEvent(int index) const {
  if (identity_.endpoint != OpenAiEndpoint::kChat) return "";
  return ChunkEvent(index, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
}

std::string OpenAiEncoder::DeltaEvent(int index, const AnswerDelta& delta, int* text_offset) const {
  Json json = Json::object();
  if (identity_.endpoint == OpenAiEndpoint::kCompletion) {
    json["text"] = delta.text;
  } else {
    if (!delta.reasoning.empty()) json["reasoning_content"] = delta.reasoning;
    if (!delta.text.empty()) json["content"] = delta.text;
    if (!delta.tool_calls.empty()) json["tool_calls"] = ToolCallDeltas(delta.tool_calls);
    if (json.empty()) json["content"] = "";  // logprobs of what is not complete yet
  }
  return ChunkEvent(index, std::move(json), Logprobs(delta, text_offset), nullptr);
}

std::string OpenAiEncoder::FinishEvent(int index, FinishReason reason) const {
  return ChunkEvent(index, Json::object(), nullptr, FinishReasonName(reason));
}

std::string OpenAiEncoder::UsageEvent(const RequestUsage& usage) const {
  const bool chat = identity_.endpoint == OpenAiEndpoint::kChat;
  Json json = Head(chat ? "chat.completion.chunk" : "text_completion");
  json["usage"] = UsageJson(usage);
  return DataEvent(Dump(json));
}

std::string OpenAiEncoder::ErrorEvent(const ApiError& error) { return DataEvent(ErrorBody(error)); }

std::string ModelListBody(const ModelDirectory& models) {
  Json json;
  json["object"] = "list";
  json["data"] = Json::array();
  for (const ModelEntry& model : models.models()) json["data"].push_back(ModelJson(model));
  return Dump(json);
}

std::string ModelBody(const ModelEntry& model) { return Dump(ModelJson(model)); }

}  // namespace dovetail::coordinator
