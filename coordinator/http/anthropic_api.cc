#include "coordinator/http/anthropic_api.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/http/anthropic_encoder.h"
#include "coordinator/http/anthropic_request.h"
#include "coordinator/http/openai_request.h"
#include "coordinator/http/random_id.h"
#include "coordinator/http/work_call.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kMessagesPath = "/v1/messages";
constexpr absl::string_view kCountPath = "/v1/messages/count_tokens";

// `max_tokens` is no field of a request to count.
MaybeError ParseMessages(const HttpRequest& http, bool counts, OpenAiRequest* request) {
  nlohmann::json body;
  nlohmann::json chat;
  if (MaybeError error = ParseJson(http.body, kMaxJsonDepth, &body)) return error;
  if (!body.is_object()) return InvalidField("", "the request body must be a JSON object");
  if (counts) body["max_tokens"] = 1;
  std::vector<std::string> unknown;
  if (MaybeError error = TranslateAnthropicRequest(body, &chat, &unknown)) return error;
  if (MaybeError error = ParseOpenAiRequest(OpenAiEndpoint::kChat, chat.dump(), request)) {
    return InAnthropicWords(*std::move(error));
  }
  request->unknown_fields = std::move(unknown);
  return std::nullopt;
}

MaybeError ParseCall(const CallContext& context, const HttpRequest& http, ParsedCall* call) {
  OpenAiRequest request;
  if (MaybeError error = ParseMessages(http, /*counts=*/false, &request)) return error;
  MessageIdentity identity;
  identity.id = absl::StrCat("msg_", RandomId());
  identity.request_id = http.request_id;
  if (MaybeError error = FindModel(context, request.model, &call->model)) return error;
  identity.model = call->model->name;
  call->encoder = std::make_unique<AnthropicEncoder>(std::move(identity));
  call->stream = request.stream;
  call->generations = std::move(request.generations);
  call->unknown_fields = std::move(request.unknown_fields);
  return std::nullopt;
}

HttpResponse CountTokens(const CallContext& context, const HttpRequest& http) {
  OpenAiRequest request;
  if (MaybeError error = ParseMessages(http, /*counts=*/true, &request)) {
    return AnthropicError(*error);
  }
  const ModelEntry* model = nullptr;
  if (MaybeError error = FindModel(context, request.model, &model)) return AnthropicError(*error);
  const auto tokens = model->generation->Tokenize(request.generations[0]);
  if (!tokens.ok()) return AnthropicError(ErrorFromStatus(tokens.status(), 0));
  return JsonResponse(200, absl::StrCat("{\"input_tokens\":", tokens->size(), "}"));
}

}  // namespace

absl::string_view AnthropicApi::AllowedMethods(absl::string_view path) const {
  return path == kMessagesPath || path == kCountPath ? "POST, OPTIONS" : "";
}

std::shared_ptr<HttpCall> AnthropicApi::Handle(HttpRequest request,
                                               std::shared_ptr<HttpReply> reply) {
  if (request.path == kCountPath) {
    auto shared = std::make_shared<HttpRequest>(std::move(request));
    return AnswerFromWorkThread(context_->executor, std::move(reply), [context = context_, shared] {
      return CountTokens(*context, *shared);
    });
  }
  auto parser = [context = context_](const HttpRequest& http, ParsedCall* call) {
    return ParseCall(*context, http, call);
  };
  auto call = std::make_shared<GenerationCall>(context_, this, parser, std::move(request),
                                               std::move(reply));
  call->Begin();
  return call;
}

HttpResponse AnthropicApi::Error(const ApiError& error) const { return AnthropicError(error); }

}  // namespace dovetail::coordinator
