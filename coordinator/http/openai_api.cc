#include "coordinator/http/openai_api.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kChatPath = "/v1/chat/completions";
constexpr absl::string_view kCompletionPath = "/v1/completions";
constexpr absl::string_view kModelsPath = "/v1/models";
constexpr absl::string_view kModelPrefix = "/v1/models/";
constexpr absl::string_view kHealthPath = "/health";

// The methods of a path; "" for a path that does not exist.
absl::string_view AllowedMethods(absl::string_view path) {
  if (path == kChatPath || path == kCompletionPath) return "POST, OPTIONS";
  if (path == kModelsPath || path == kHealthPath || absl::StartsWith(path, kModelPrefix)) {
    return "GET, HEAD, OPTIONS";
  }
  return "";
}

HttpResponse NoRoute(const HttpRequest& request) {
  ApiError error;
  error.status = 404;
  error.type = "not_found_error";
  error.code = "not_found";
  error.message = absl::StrCat("there is no ", request.method, " ", request.path);
  return ErrorResponse(error);
}

HttpResponse WrongMethod(const HttpRequest& request, absl::string_view allowed) {
  ApiError error;
  error.status = 405;
  error.code = "method_not_allowed";
  error.message = absl::StrCat(request.path, " does not take ", request.method, "; use ", allowed);
  HttpResponse response = ErrorResponse(error);
  response.headers.emplace_back("Allow", std::string(allowed));
  return response;
}

HttpResponse Options(absl::string_view allowed) {
  HttpResponse response;
  response.status = 204;
  response.headers.emplace_back("Allow", std::string(allowed));
  return response;
}

}  // namespace

OpenAiApi::OpenAiApi(HttpApi api, absl::Duration request_timeout,
                     std::shared_ptr<HttpExecutor> executor) {
  context_.api = std::move(api);
  context_.request_timeout = request_timeout;
  context_.executor = std::move(executor);
}

std::shared_ptr<HttpCall> OpenAiApi::Handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  if (request.method == "OPTIONS" && request.path == "*") {
    reply->Send(Options("GET, HEAD, POST, OPTIONS"));
    return nullptr;
  }
  const absl::string_view allowed = AllowedMethods(request.path);
  if (allowed.empty()) {
    reply->Send(NoRoute(request));
    return nullptr;
  }
  if (!absl::StrContains(absl::StrCat(", ", allowed, ","),
                         absl::StrCat(", ", request.method, ","))) {
    reply->Send(WrongMethod(request, allowed));
    return nullptr;
  }
  if (request.method == "OPTIONS") {
    reply->Send(Options(allowed));
    return nullptr;
  }
  if (request.method != "POST") {
    reply->Send(HandleGet(request));
    return nullptr;
  }
  const OpenAiEndpoint endpoint =
      request.path == kChatPath ? OpenAiEndpoint::kChat : OpenAiEndpoint::kCompletion;
  auto call =
      std::make_shared<OpenAiCall>(&context_, endpoint, std::move(request), std::move(reply));
  call->Begin();
  return call;
}

HttpResponse OpenAiApi::HandleGet(const HttpRequest& request) const {
  if (request.path == kHealthPath) return Health();
  if (request.path == kModelsPath) {
    return JsonResponse(200, ModelListBody(context_.api.model_name, context_.api.model_created,
                                           context_.api.context_length));
  }
  return Model(absl::StripPrefix(request.path, kModelPrefix));
}

HttpResponse OpenAiApi::Health() const {
  HealthReport report;
  if (context_.api.health) {
    report = context_.api.health();
  } else {
    report.ready = true;
    report.state = "ok";
  }
  nlohmann::ordered_json body;
  body["status"] = report.ready ? "ok" : report.state;
  if (!report.message.empty()) body["message"] = report.message;
  HttpResponse response =
      JsonResponse(report.ready ? 200 : 503,
                   body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  if (!report.ready) response.headers.emplace_back("Retry-After", "2");
  return response;
}

HttpResponse OpenAiApi::Model(absl::string_view id) const {
  if (id != context_.api.model_name) {
    return ErrorResponse(ModelNotFound(absl::StrCat("The model `", id, "` does not exist")));
  }
  return JsonResponse(200, ModelBody(context_.api.model_name, context_.api.model_created,
                                     context_.api.context_length));
}

}  // namespace dovetail::coordinator
