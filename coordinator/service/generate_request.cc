#include "coordinator/service/generate_request.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/http/openai_request.h"
#include "coordinator/http/openai_tools.h"
#include "dovetail/v1/inference.pb.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::json;

absl::Status ToStatus(const MaybeError& error) {
  return error.has_value() ? absl::InvalidArgumentError(error->message) : absl::OkStatus();
}

// The text of a field that holds JSON.
absl::Status CheckJson(absl::string_view field, const std::string& text) {
  Json ignored;
  const MaybeError error = ParseJson(text, kMaxJsonDepth, &ignored);
  return error.has_value() ? FieldError(field, absl::StrCat("is not JSON: ", error->message))
                           : absl::OkStatus();
}

// Tools come as JSON and are read as those of the HTTP API.
absl::Status ReadChatOptions(const v1::Chat& proto, GenerationRequest* request) {
  std::string body = "{";
  const auto add = [&](absl::string_view name, absl::string_view json) {
    absl::StrAppend(&body, body.size() > 1 ? "," : "", "\"", name, "\":", json);
  };
  if (!proto.tools().empty()) {
    DT_RETURN_IF_ERROR(CheckJson("tools", proto.tools()));
    add("tools", proto.tools());
  }
  if (absl::StartsWith(proto.tool_choice(), "{")) {
    DT_RETURN_IF_ERROR(CheckJson("tool_choice", proto.tool_choice()));
    add("tool_choice", proto.tool_choice());
  } else if (!proto.tool_choice().empty()) {
    add("tool_choice",
        Json(proto.tool_choice()).dump(-1, ' ', true, Json::error_handler_t::replace));
  }
  if (proto.has_parallel_tool_calls()) {
    add("parallel_tool_calls", proto.parallel_tool_calls() ? "true" : "false");
  }
  if (!proto.template_arguments().empty()) {
    DT_RETURN_IF_ERROR(CheckJson("template_arguments", proto.template_arguments()));
    add("chat_template_kwargs", proto.template_arguments());
  }
  body += "}";
  Json json;
  DT_RETURN_IF_ERROR(ToStatus(ParseJson(body, kMaxJsonDepth + 1, &json)));
  DT_RETURN_IF_ERROR(ToStatus(ReadTools(json, &request->chat)));
  DT_RETURN_IF_ERROR(ToStatus(ReadTemplateArguments(json, &request->chat)));
  KeepMemberOrder(body, request);
  return absl::OkStatus();
}

std::vector<ChatMessage> MessagesOf(const v1::Chat& proto) {
  std::vector<ChatMessage> messages;
  for (const v1::ChatMessage& message : proto.messages()) {
    ChatMessage out{message.role(), message.content()};
    for (const v1::ToolCall& call : message.tool_calls()) {
      out.tool_calls.push_back(
          {call.id(), call.name(), call.arguments().empty() ? "{}" : call.arguments()});
    }
    out.tool_call_id = message.tool_call_id();
    out.name = message.name();
    out.reasoning = message.reasoning();
    messages.push_back(std::move(out));
  }
  return messages;
}

void ReadSamplingOptions(const v1::SamplingOptions& sampling, GenerationRequest* request) {
  if (sampling.has_temperature()) request->temperature = sampling.temperature();
  if (sampling.has_top_p()) request->top_p = sampling.top_p();
  if (sampling.has_min_p()) request->min_p = sampling.min_p();
  if (sampling.has_top_k()) request->top_k = sampling.top_k();
  if (sampling.has_seed()) request->seed = sampling.seed();
  if (sampling.has_presence_penalty()) request->presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty()) request->frequency_penalty = sampling.frequency_penalty();
  if (sampling.has_repetition_penalty()) {
    request->repetition_penalty = sampling.repetition_penalty();
  }
  if (sampling.has_min_tokens()) request->min_tokens = sampling.min_tokens();
  for (const auto& [token, bias] : sampling.logit_bias()) {
    request->logit_bias.emplace_back(token, bias);
  }
}

void ReadFormatOf(const v1::Format& proto, GenerationRequest* request) {
  switch (proto.kind_case()) {
    case v1::Format::kJsonObject:
      request->format = {GrammarKind::kJsonObject, "", "format.json_object"};
      if (!proto.json_object()) request->format.reset();
      break;
    case v1::Format::kJsonSchema:
      request->format = {GrammarKind::kJsonSchema, proto.json_schema(), "format.json_schema"};
      break;
    case v1::Format::kRegex:
      request->format = {GrammarKind::kRegex, proto.regex(), "format.regex"};
      break;
    case v1::Format::kGrammar:
      request->format = {GrammarKind::kEbnf, proto.grammar(), "format.grammar"};
      break;
    default:
      break;
  }
}

}  // namespace

absl::StatusOr<GenerationRequest> FromProto(const v1::GenerateRequest& proto) {
  GenerationRequest request;
  switch (proto.input_case()) {
    case v1::GenerateRequest::kPrompt:
      request.input = proto.prompt();
      break;
    case v1::GenerateRequest::kTokenIds:
      request.input =
          std::vector<int32_t>(proto.token_ids().ids().begin(), proto.token_ids().ids().end());
      break;
    case v1::GenerateRequest::kChat:
      request.input = MessagesOf(proto.chat());
      DT_RETURN_IF_ERROR(ReadChatOptions(proto.chat(), &request));
      break;
    default:
      return absl::InvalidArgumentError("one of `prompt`, `token_ids` and `chat` is needed");
  }
  if (proto.n() > kMaxGrpcChoices) {
    return FieldError("n", absl::StrCat("must be at most ", kMaxGrpcChoices, ", got ", proto.n()));
  }
  ReadSamplingOptions(proto.sampling(), &request);
  ReadFormatOf(proto.format(), &request);
  if (request.format.has_value() && request.format->kind == GrammarKind::kJsonSchema) {
    DT_RETURN_IF_ERROR(CheckJson("format.json_schema", request.format->source));
  }
  if (proto.has_max_tokens()) request.max_tokens = proto.max_tokens();
  request.stop.assign(proto.stop().begin(), proto.stop().end());
  request.stop_token_ids.assign(proto.stop_token_ids().begin(), proto.stop_token_ids().end());
  request.ignore_eos = proto.ignore_eos();
  request.echo = proto.echo();
  request.cache_salt = proto.cache_salt();
  request.priority = proto.priority();
  if (request.echo && proto.has_chat()) return FieldError("echo", "is not for chats");
  if (proto.has_logprobs()) request.logprobs = proto.logprobs();
  return request;
}

}  // namespace dovetail::coordinator
