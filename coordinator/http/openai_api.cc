#include "coordinator/http/openai_api.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "coordinator/http/embeddings.h"
#include "coordinator/http/openai_encoder.h"
#include "coordinator/http/openai_request.h"
#include "coordinator/http/random_id.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kChatPath = "/v1/chat/completions";
constexpr absl::string_view kCompletionPath = "/v1/completions";
constexpr absl::string_view kEmbeddingsPath = "/v1/embeddings";
constexpr absl::string_view kModelsPath = "/v1/models";
constexpr absl::string_view kModelPrefix = "/v1/models/";

std::optional<ApiError> ParseCall(const CallContext& context, OpenAiEndpoint endpoint,
                                  const HttpRequest& http, ParsedCall* call) {
  OpenAiRequest request;
  if (std::optional<ApiError> error = ParseOpenAiRequest(endpoint, http.body, &request)) {
    return error;
  }
  if (MaybeError error = FindModel(context, request.model, &call->model)) return error;
  call->stream = request.stream;
  call->choices_per_prompt = request.choices_per_prompt;
  call->unknown_fields = std::move(request.unknown_fields);

  AnswerIdentity identity;
  identity.endpoint = endpoint;
  identity.id = absl::StrCat(endpoint == OpenAiEndpoint::kChat ? "chatcmpl-" : "cmpl-", RandomId());
  identity.created = absl::ToUnixSeconds(http.received);
  identity.model = call->model->name;
  identity.system_fingerprint = call->model->system_fingerprint;
  identity.include_usage = request.include_usage;
  identity.logprobs = request.generations[0].logprobs.has_value();
  call->encoder = std::make_unique<OpenAiEncoder>(std::move(identity));
  call->generations = std::move(request.generations);
  return std::nullopt;
}

}  // namespace

absl::string_view OpenAiApi::AllowedMethods(absl::string_view path) const {
  if (path == kChatPath || path == kCompletionPath || path == kEmbeddingsPath) {
    return "POST, OPTIONS";
  }
  if (path == kModelsPath || absl::StartsWith(path, kModelPrefix)) return "GET, HEAD, OPTIONS";
  return "";
}

std::shared_ptr<HttpCall> OpenAiApi::Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  if (request.path == kModelsPath) {
    reply->Send(JsonResponse(200, ModelListBody(*context_->api.models)));
    return nullptr;
  }
  if (absl::StartsWith(request.path, kModelPrefix)) {
    reply->Send(Model(absl::StripPrefix(request.path, kModelPrefix)));
    return nullptr;
  }
  if (request.path == kEmbeddingsPath) {
    return AnswerEmbedding(context_, this, EmbeddingEndpoint::kOpenAi, std::move(request),
                           std::move(reply));
  }
  const OpenAiEndpoint endpoint =
      request.path == kChatPath ? OpenAiEndpoint::kChat : OpenAiEndpoint::kCompletion;
  auto parser = [context = context_, endpoint](const HttpRequest& http, ParsedCall* call) {
    return ParseCall(*context, endpoint, http, call);
  };
  auto call = std::make_shared<GenerationCall>(context_, this, parser, std::move(request),
                                               std::move(reply));
  call->Begin();
  return call;
}

HttpResponse OpenAiApi::Model(absl::string_view id) const {
  const absl::StatusOr<const ModelEntry*> model = context_->api.models->Find(id);
  if (!model.ok() || id.empty()) {
    return ErrorResponse(ModelNotFound(absl::StrCat("The model `", id, "` does not exist")));
  }
  return JsonResponse(200, ModelBody(**model));
}

}  // namespace dovetail::coordinator
