#include "coordinator/http/http_router.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace dovetail::coordinator {
namespace {

ApiError NoRoute(const HttpRequest& request) {
  ApiError error;
  error.status = 404;
  error.type = "not_found_error";
  error.code = "not_found";
  error.message = absl::StrCat("there is no ", request.method, " ", request.path);
  return error;
}

ApiError WrongMethod(const HttpRequest& request, absl::string_view allowed) {
  ApiError error;
  error.status = 405;
  error.code = "method_not_allowed";
  error.message = absl::StrCat(request.path, " does not take ", request.method, "; use ", allowed);
  return error;
}

HttpResponse Options(absl::string_view allowed) {
  HttpResponse response;
  response.status = 204;
  response.headers.emplace_back("Allow", std::string(allowed));
  return response;
}

bool Allows(absl::string_view allowed, absl::string_view method) {
  return absl::StrContains(absl::StrCat(", ", allowed, ","), absl::StrCat(", ", method, ","));
}

}  // namespace

HttpRouter::HttpRouter(std::vector<std::unique_ptr<HttpDialect>> dialects, const ApiKeys* keys)
    : dialects_(std::move(dialects)), keys_(keys) {}

HttpDialect* HttpRouter::FindDialect(absl::string_view path) const {
  for (const auto& dialect : dialects_) {
    if (!dialect->AllowedMethods(path).empty()) return dialect.get();
  }
  return nullptr;
}

std::optional<ApiError> HttpRouter::Admit(absl::string_view path, absl::string_view key,
                                          std::string* tenant) {
  tenant->clear();
  if (path == kHealthPath) return std::nullopt;
  std::optional<std::string> name = keys_->Find(key);
  if (!name.has_value()) {
    return InvalidApiKey(key.empty()
                             ? "an API key is needed: send it as `Authorization: Bearer KEY`"
                             : "the API key is not known here");
  }
  *tenant = *std::move(name);
  return std::nullopt;
}

HttpResponse HttpRouter::ErrorFor(absl::string_view path, const ApiError& error) const {
  const HttpDialect* dialect = FindDialect(path);
  return dialect != nullptr ? dialect->Error(error) : ErrorResponse(error);
}

std::shared_ptr<HttpCall> HttpRouter::Handle(HttpRequest request,
                                             std::shared_ptr<HttpReply> reply) {
  if (request.method == "OPTIONS" && request.path == "*") {
    reply->Send(Options("GET, HEAD, POST, OPTIONS"));
    return nullptr;
  }
  HttpDialect* dialect = FindDialect(request.path);
  if (dialect == nullptr) {
    reply->Send(ErrorResponse(NoRoute(request)));
    return nullptr;
  }
  const absl::string_view allowed = dialect->AllowedMethods(request.path);
  if (!Allows(allowed, request.method)) {
    HttpResponse response = dialect->Error(WrongMethod(request, allowed));
    response.headers.emplace_back("Allow", std::string(allowed));
    reply->Send(std::move(response));
    return nullptr;
  }
  if (request.method == "OPTIONS") {
    reply->Send(Options(allowed));
    return nullptr;
  }
  return dialect->Handle(std::move(request), std::move(reply));
}

}  // namespace dovetail::coordinator
