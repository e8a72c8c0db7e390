#include "coordinator/http/api_error.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace dovetail::coordinator {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kUnavailableRetrySeconds = 2;

Json OrNull(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

// "`top_p` must be ..." -> "top_p".
std::string FieldOf(absl::string_view message) {
  if (message.empty() || message.front() != '`') return "";
  const size_t end = message.find('`', 1);
  return end == absl::string_view::npos ? "" : std::string(message.substr(1, end - 1));
}

ApiError Make(int status, absl::string_view message, absl::string_view type,
              absl::string_view code) {
  ApiError error;
  error.status = status;
  error.message = std::string(message);
  error.type = std::string(type);
  error.code = std::string(code);
  return error;
}

ApiError FromInvalidArgument(absl::string_view message) {
  // The service has one code for every bad input; clients look for this one by name, and truncate.
  const bool too_long = absl::StrContains(message, "context length");
  ApiError error =
      Make(400, message, "invalid_request_error", too_long ? "context_length_exceeded" : "");
  error.param = FieldOf(message);
  return error;
}

}  // namespace

ApiError InvalidField(absl::string_view param, absl::string_view message) {
  ApiError error;
  error.param = std::string(param);
  error.message = std::string(message);
  return error;
}

ApiError UnsupportedField(absl::string_view param, absl::string_view message) {
  ApiError error = InvalidField(param, message);
  error.code = "unsupported_parameter";
  return error;
}

ApiError ModelNotFound(absl::string_view message) {
  ApiError error = Make(404, message, "invalid_request_error", "model_not_found");
  error.param = "model";
  return error;
}

ApiError InvalidApiKey(absl::string_view message) {
  return Make(401, message, "authentication_error", "invalid_api_key");
}

ApiError ErrorFromStatus(const absl::Status& status, int retry_after_seconds) {
  const absl::string_view message = status.message();
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return FromInvalidArgument(message);
    case absl::StatusCode::kUnimplemented:
      return UnsupportedField(FieldOf(message), message);
    case absl::StatusCode::kNotFound:
      return ModelNotFound(message);
    case absl::StatusCode::kResourceExhausted: {
      ApiError error = Make(429, message, "rate_limit_error", "queue_full");
      error.retry_after_seconds = retry_after_seconds;
      return error;
    }
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted: {
      ApiError error = Make(503, message, "server_error", "unavailable");
      error.retry_after_seconds = kUnavailableRetrySeconds;
      return error;
    }
    case absl::StatusCode::kDeadlineExceeded:
      return Make(504, message, "timeout", "deadline_exceeded");
    default:
      return Make(500, message.empty() ? "internal error" : message, "server_error",
                  "internal_error");
  }
}

std::string ErrorBody(const ApiError& error) {
  Json body;
  body["error"]["message"] = error.message;
  body["error"]["type"] = error.type;
  body["error"]["param"] = OrNull(error.param);
  body["error"]["code"] = OrNull(error.code);
  // A message may quote the client's bytes: what is not UTF-8 becomes U+FFFD.
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response = JsonResponse(error.status, ErrorBody(error));
  if (error.retry_after_seconds > 0) {
    response.headers.emplace_back("Retry-After", absl::StrCat(error.retry_after_seconds));
  }
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace dovetail::coordinator
