#include "coordinator/http/service_api.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/metrics.h"
#include "coordinator/http/json_reader.h"
#include "coordinator/http/openai_messages.h"
#include "coordinator/http/openai_request.h"
#include "coordinator/http/work_call.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kMetricsPath = "/metrics";
constexpr absl::string_view kTokenizePath = "/tokenize";
constexpr absl::string_view kDetokenizePath = "/detokenize";
constexpr absl::string_view kTokenizerInfoPath = "/tokenizer_info";

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

MaybeError ReadObject(const HttpRequest& request, const CallContext& context, nlohmann::json* body,
                      const ModelEntry** model) {
  if (MaybeError error = ParseJson(request.body, kMaxJsonDepth, body)) return error;
  if (!body->is_object()) return InvalidField("", "the request body must be a JSON object");
  std::string name;
  if (MaybeError error = ReadString(*body, "model", &name)) return error;
  return FindModel(context, name, model);
}

// A text under vLLM's name or llama.cpp's, each with its server's defaults; or a chat.
MaybeError Tokenize(const GenerationService& generation, const nlohmann::json& body,
                    std::vector<int32_t>* ids) {
  if (FindMember(body, "messages") != nullptr) {
    std::vector<ChatMessage> messages;
    if (MaybeError error = ReadMessages(body, &messages)) return error;
    GenerationRequest request;
    request.input = std::move(messages);
    absl::StatusOr<std::vector<int32_t>> tokens = generation.Tokenize(request);
    if (!tokens.ok()) return ErrorFromStatus(tokens.status(), 0);
    *ids = *std::move(tokens);
    return std::nullopt;
  }
  const bool is_content = FindMember(body, "content") != nullptr;
  const char* name = is_content ? "content" : "prompt";
  if (FindMember(body, name) == nullptr) {
    return InvalidField("prompt", "`prompt` (or `content`, or `messages`) is required");
  }
  std::string text;
  model::EncodeOptions options;
  options.add_special = !is_content;
  options.parse_special = true;
  if (MaybeError error = ReadString(body, name, &text)) return error;
  if (MaybeError error = ReadBool(body, "add_special", &options.add_special)) return error;
  if (MaybeError error = ReadBool(body, "add_special_tokens", &options.add_special)) return error;
  if (MaybeError error = ReadBool(body, "parse_special", &options.parse_special)) return error;
  absl::StatusOr<std::vector<int32_t>> tokens = generation.tokenizer().Encode(text, options);
  if (!tokens.ok()) return ErrorFromStatus(tokens.status(), 0);
  *ids = *std::move(tokens);
  return std::nullopt;
}

HttpResponse TokenizeResponse(const CallContext& context, const HttpRequest& request) {
  nlohmann::json body;
  std::vector<int32_t> ids;
  const ModelEntry* model = nullptr;
  MaybeError error = ReadObject(request, context, &body, &model);
  if (!error) error = Tokenize(*model->generation, body, &ids);
  if (error) return ErrorResponse(*error);
  Json json;
  json["count"] = ids.size();
  json["max_model_len"] = model->context_length;
  json["tokens"] = ids;
  return JsonResponse(200, Dump(json));
}

MaybeError Detokenize(const GenerationService& generation, const nlohmann::json& body,
                      std::string* text) {
  const nlohmann::json* tokens = FindMember(body, "tokens");
  if (tokens == nullptr) return InvalidField("tokens", "`tokens` is required");
  if (!tokens->is_array()) return WrongType("tokens", "an array of token ids", *tokens);
  const model::Tokenizer& tokenizer = generation.tokenizer();
  std::vector<int32_t> ids;
  for (size_t i = 0; i < tokens->size(); ++i) {
    const nlohmann::json& item = (*tokens)[i];
    const bool is_id = item.is_number_unsigned() &&
                       item.get<uint64_t>() < static_cast<uint64_t>(tokenizer.vocab_size());
    if (!is_id) {
      return InvalidField("tokens", absl::StrCat("`tokens[", i, "]` must be a token id, 0 to ",
                                                 tokenizer.vocab_size() - 1));
    }
    ids.push_back(item.get<int32_t>());
  }
  bool special = true;
  if (MaybeError error = ReadBool(body, "special", &special)) return error;
  if (!tokenizer.has_vocab()) {
    return InvalidField("tokens", "`tokens` cannot be used: the model's file has no vocabulary");
  }
  *text = tokenizer.Decode(ids, special);
  return std::nullopt;
}

HttpResponse DetokenizeResponse(const CallContext& context, const HttpRequest& request) {
  nlohmann::json body;
  std::string text;
  const ModelEntry* model = nullptr;
  MaybeError error = ReadObject(request, context, &body, &model);
  if (!error) error = Detokenize(*model->generation, body, &text);
  if (error) return ErrorResponse(*error);
  Json json;
  json["prompt"] = text;   // vLLM's name
  json["content"] = text;  // llama.cpp's
  return JsonResponse(200, Dump(json));
}

// vLLM's, with the names of Hugging Face's tokenizer_config.json.
HttpResponse TokenizerInfo(const CallContext& context, const HttpRequest& request) {
  const absl::StatusOr<const ModelEntry*> model =
      context.api.models->Find(QueryParameter(request.query, "model"));
  if (!model.ok()) return ErrorResponse(ErrorFromStatus(model.status(), 0));
  const GenerationService* generation = (*model)->generation;
  if (generation == nullptr || !generation->tokenizer().has_vocab()) {
    return ErrorResponse(ErrorFromStatus(
        absl::NotFoundError("this model has no vocabulary: it cannot serve text"), 0));
  }
  const model::Tokenizer& tokenizer = generation->tokenizer();
  const auto text = [&](std::optional<int32_t> id) {
    return id.has_value() ? Json(tokenizer.TokenBytes(*id, /*special=*/true)) : Json(nullptr);
  };
  Json json;
  json["bos_token"] = text(tokenizer.bos());
  json["eos_token"] = text(tokenizer.eos());
  json["add_bos_token"] = tokenizer.add_bos();
  json["vocab_size"] = tokenizer.vocab_size();
  json["model_max_length"] = generation->context_length();
  const std::string& chat_template = (*model)->facts.chat_template;
  json["chat_template"] = chat_template.empty() ? Json(nullptr) : Json(chat_template);
  return JsonResponse(200, Dump(json));
}

}  // namespace

absl::string_view ServiceApi::AllowedMethods(absl::string_view path) const {
  if (path == kHealthPath || path == kMetricsPath || path == kTokenizerInfoPath) {
    return "GET, HEAD, OPTIONS";
  }
  if (path == kTokenizePath || path == kDetokenizePath) return "POST, OPTIONS";
  return "";
}

std::shared_ptr<HttpCall> ServiceApi::Handle(HttpRequest request,
                                             std::shared_ptr<HttpReply> reply) {
  if (request.method != "POST") {
    reply->Send(request.path == kHealthPath    ? Health()
                : request.path == kMetricsPath ? Metrics()
                                               : TokenizerInfo(*context_, request));
    return nullptr;
  }
  auto answer = request.path == kTokenizePath ? TokenizeResponse : DetokenizeResponse;
  auto shared = std::make_shared<HttpRequest>(std::move(request));
  return AnswerFromWorkThread(
      context_->executor, std::move(reply),
      [answer, context = context_, shared] { return answer(*context, *shared); });
}

HttpResponse ServiceApi::Health() const {
  HealthReport report;
  if (context_->api.health) {
    report = context_->api.health();
  } else {
    report.ready = true;
    report.state = "ok";
  }
  Json body;
  body["status"] = report.ready ? "ok" : report.state;
  if (!report.message.empty()) body["message"] = report.message;
  for (const auto& [model, state] : report.models) body["models"][model] = state;
  HttpResponse response = JsonResponse(report.ready ? 200 : 503, Dump(body));
  if (!report.ready) response.headers.emplace_back("Retry-After", "2");
  return response;
}

HttpResponse ServiceApi::Metrics() const {
  HttpResponse response;
  response.headers.emplace_back("Content-Type", MetricsText::kContentType);
  if (context_->api.metrics) response.body = context_->api.metrics();
  return response;
}

}  // namespace dovetail::coordinator
