#include "coordinator/http/anthropic_encoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The event's name is the type of its data.
std::string NamedEvent(const Json& data) {
  return absl::StrCat("event: ", data["type"].get_ref<const std::string&>(), "\ndata: ", Dump(data),
                      "\n\n");
}

// Anthropic counts what was read from the cache apart.
Json UsageJson(const RequestUsage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

const char* ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

AnthropicEncoder::AnthropicEncoder(MessageIdentity identity) : identity_(std::move(identity)) {}

AnthropicEncoder::Ending AnthropicEncoder::EndingOf(FinishReason reason, const std::string& stop) {
  if (reason == FinishReason::kToolCalls) return {"tool_use", nullptr};
  if (reason == FinishReason::kLength) return {"max_tokens", nullptr};
  return stop.empty() ? Ending{"end_turn", nullptr} : Ending{"stop_sequence", stop};
}

Json AnthropicEncoder::Message(Json content, const Ending& ending,
                               const RequestUsage& usage) const {
  Json message;
  message["id"] = identity_.id;
  message["type"] = "message";
  message["role"] = "assistant";
  message["model"] = identity_.model;
  message["content"] = std::move(content);
  message["stop_reason"] = ending.reason;
  message["stop_sequence"] = ending.sequence;
  message["usage"] = UsageJson(usage);
  return message;
}

HttpHeaders AnthropicEncoder::StreamHeaders() const {
  HttpHeaders headers = EventStreamHeaders();
  headers.emplace_back("request-id", identity_.request_id);
  return headers;
}

std::string AnthropicEncoder::Begin(int, const RequestUsage& prompt) {
  return NamedEvent({{"type", "message_start"}, {"message", Message(Json::array(), {}, prompt)}});
}

std::string AnthropicEncoder::OpenBlock(const std::string& type, Json start) {
  if (open_type_ == type) return "";
  std::string events = CloseBlock();
  open_type_ = type;
  absl::StrAppend(&events, NamedEvent({{"type", "content_block_start"},
                                       {"index", ++block_},
                                       {"content_block", std::move(start)}}));
  return events;
}

std::string AnthropicEncoder::CloseBlock() {
  if (open_type_.empty()) return "";
  open_type_.clear();
  return NamedEvent({{"type", "content_block_stop"}, {"index", block_}});
}

std::string AnthropicEncoder::Delta(Json delta) const {
  return NamedEvent(
      {{"type", "content_block_delta"}, {"index", block_}, {"delta", std::move(delta)}});
}

std::string AnthropicEncoder::Event(int, const GenerationEvent& event) {
  std::string events;
  if (!event.reasoning.empty()) {
    events = OpenBlock("thinking", {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
    absl::StrAppend(&events, Delta({{"type", "thinking_delta"}, {"thinking", event.reasoning}}));
  }
  if (!event.text.empty()) {
    absl::StrAppend(&events, OpenBlock("text", {{"type", "text"}, {"text", ""}}));
    absl::StrAppend(&events, Delta({{"type", "text_delta"}, {"text", event.text}}));
  }
  for (const ToolCallDelta& call : event.tool_calls) {
    // Each call is a block; only its first piece has the id.
    if (!call.id.empty()) {
      absl::StrAppend(&events, CloseBlock());
      absl::StrAppend(&events, OpenBlock("tool_use", {{"type", "tool_use"},
                                                      {"id", call.id},
                                                      {"name", call.name},
                                                      {"input", Json::object()}}));
    }
    if (call.arguments.empty()) continue;
    absl::StrAppend(&events,
                    Delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}}));
  }
  if (event.finished) {
    absl::StrAppend(&events, CloseBlock());
    ending_ = EndingOf(event.reason, event.stop);
  }
  return events;
}

std::string AnthropicEncoder::End(const AnswerTotals& totals) {
  return absl::StrCat(
      NamedEvent({{"type", "message_delta"},
                  {"delta", {{"stop_reason", ending_.reason}, {"stop_sequence", ending_.sequence}}},
                  {"usage", UsageJson(totals.usage)}}),
      NamedEvent({{"type", "message_stop"}}));
}

std::string AnthropicEncoder::Error(const ApiError& error) {
  return absl::StrCat("event: error\ndata: ", AnthropicErrorBody(error), "\n\n");
}

std::string AnthropicEncoder::KeepAlive() { return NamedEvent({{"type", "ping"}}); }

HttpResponse AnthropicEncoder::Whole(absl::Span<const CompletedChoice> choices,
                                     const AnswerTotals& totals) {
  const AnswerDelta& answer = choices[0].answer;
  Json content = Json::array();
  if (!answer.reasoning.empty()) {
    content.push_back({{"type", "thinking"}, {"thinking", answer.reasoning}, {"signature", ""}});
  }
  if (!answer.text.empty()) content.push_back({{"type", "text"}, {"text", answer.text}});
  for (const ToolCallDelta& call : answer.tool_calls) {
    // Arguments that were cut off by the limit are no JSON; the reason says so.
    Json input = Json::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
    content.push_back({{"type", "tool_use"},
                       {"id", call.id},
                       {"name", call.name},
                       {"input", input.is_object() ? std::move(input) : Json::object()}});
  }
  HttpResponse response =
      JsonResponse(200, Dump(Message(std::move(content),
                                     EndingOf(choices[0].reason, choices[0].stop), totals.usage)));
  response.headers.emplace_back("request-id", identity_.request_id);
  return response;
}

std::string AnthropicErrorBody(const ApiError& error) {
  return Dump({{"type", "error"},
               {"error", {{"type", ErrorType(error.status)}, {"message", error.message}}}});
}

HttpResponse AnthropicError(const ApiError& error) {
  HttpResponse response = ErrorResponse(error);
  response.body = AnthropicErrorBody(error);
  return response;
}

}  // namespace dovetail::coordinator
