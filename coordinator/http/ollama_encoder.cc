#include "coordinator/http/ollama_encoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Line(const Json& json) { return absl::StrCat(Dump(json), "\n"); }

constexpr char kNdjson[] = "application/x-ndjson";

AnswerDelta OnlyCalls(const AnswerDelta& delta) {
  AnswerDelta calls;
  calls.tool_calls = delta.tool_calls;
  return calls;
}

// Ollama's calls have no id, and their arguments are an object.
Json ToolCalls(const std::vector<ToolCallDelta>& calls) {
  Json json = Json::array();
  for (const ToolCallDelta& call : calls) {
    Json arguments = Json::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
    json.push_back(
        {{"function",
          {{"name", call.name},
           {"arguments", arguments.is_object() ? std::move(arguments) : Json::object()}}}});
  }
  return json;
}

}  // namespace

OllamaEncoder::OllamaEncoder(OllamaEndpoint endpoint, std::string model)
    : endpoint_(endpoint), model_(std::move(model)) {}

Json OllamaEncoder::Answer(const AnswerDelta& delta) const {
  Json json;
  json["model"] = model_;
  json["created_at"] = OllamaTime(absl::Now());
  if (endpoint_ == OllamaEndpoint::kChat) {
    Json& message = json["message"];
    message["role"] = "assistant";
    message["content"] = delta.text;
    if (!delta.reasoning.empty()) message["thinking"] = delta.reasoning;
    if (!delta.tool_calls.empty()) message["tool_calls"] = ToolCalls(delta.tool_calls);
  } else {
    json["response"] = delta.text;
    if (!delta.reasoning.empty()) json["thinking"] = delta.reasoning;
  }
  json["done"] = false;
  return json;
}

Json OllamaEncoder::Last(const AnswerDelta& delta, const AnswerTotals& totals) const {
  Json json = Answer(delta);
  json["done"] = true;
  json["done_reason"] = reason_ == FinishReason::kLength ? "length" : "stop";
  json["total_duration"] = absl::ToInt64Nanoseconds(totals.taken);
  json["load_duration"] = 0;
  json["prompt_eval_count"] = totals.usage.prompt_tokens;
  json["prompt_eval_duration"] = absl::ToInt64Nanoseconds(totals.first_answer);
  json["eval_count"] = totals.usage.completion_tokens;
  json["eval_duration"] = absl::ToInt64Nanoseconds(totals.taken - totals.first_answer);
  return json;
}

HttpHeaders OllamaEncoder::StreamHeaders() const {
  return {{"Content-Type", kNdjson}, {"X-Accel-Buffering", "no"}};
}

std::string OllamaEncoder::Event(int, const GenerationEvent& event) {
  if (event.finished) reason_ = event.reason;
  // A call goes out whole, at the end: its arguments are one object here.
  calls_.Add(OnlyCalls(event));
  AnswerDelta now;
  now.text = event.text;
  now.reasoning = event.reasoning;
  return now.empty() ? "" : Line(Answer(now));
}

std::string OllamaEncoder::End(const AnswerTotals& totals) { return Line(Last(calls_, totals)); }

std::string OllamaEncoder::Error(const ApiError& error) {
  return absl::StrCat(OllamaError(error).body, "\n");
}

HttpResponse OllamaEncoder::Whole(absl::Span<const CompletedChoice> choices,
                                  const AnswerTotals& totals) {
  reason_ = choices[0].reason;
  return JsonResponse(200, Dump(Last(choices[0].answer, totals)));
}

HttpResponse OllamaEncoder::Loaded(bool stream) const {
  Json json = Answer(AnswerDelta());
  json["done"] = true;
  json["done_reason"] = "load";
  if (!stream) return JsonResponse(200, Dump(json));
  HttpResponse response;
  response.headers.emplace_back("Content-Type", kNdjson);
  response.body = Line(json);
  return response;
}

HttpResponse OllamaError(const ApiError& error) {
  HttpResponse response = ErrorResponse(error);
  response.body = Dump({{"error", error.message}});
  return response;
}

std::string OllamaTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", time, absl::UTCTimeZone());
}

}  // namespace dovetail::coordinator
