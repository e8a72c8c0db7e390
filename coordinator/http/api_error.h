// ApiError: an error as OpenAI's clients expect it: an HTTP status and
// {"error":{message,type,param,code}}.
//
// Everything that can go wrong with a request becomes one of these exactly once, so that the body
// of a response and the error event of a stream say the same. Plain data and pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_API_ERROR_H_
#define DOVETAIL_COORDINATOR_HTTP_API_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "coordinator/http/http_message.h"

namespace dovetail::coordinator {

struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;            // "": null
  std::string code;             // "": null
  int retry_after_seconds = 0;  // 0: no header
};

// 400 for one field of the request.
ApiError InvalidField(absl::string_view param, absl::string_view message);
// 400 "unsupported_parameter": the field is known and cannot be honoured.
ApiError UnsupportedField(absl::string_view param, absl::string_view message);
// 404 "model_not_found".
ApiError ModelNotFound(absl::string_view message);

// 401 "invalid_api_key".
ApiError InvalidApiKey(absl::string_view message);

// What GenerationService or the engine refused. A message that begins with a field in backticks
// names `param`. `retry_after_seconds` is for 429.
ApiError ErrorFromStatus(const absl::Status& status, int retry_after_seconds);

// {"error":{...}}
std::string ErrorBody(const ApiError& error);
HttpResponse ErrorResponse(const ApiError& error);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_API_ERROR_H_
