// What is wrong with a request before anyone looks at its body: the checks of a request's head, and
// the errors of the connection itself. Pure functions.
#ifndef DOVETAIL_COORDINATOR_HTTP_REQUEST_HEAD_H_
#define DOVETAIL_COORDINATOR_HTTP_REQUEST_HEAD_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/http_server.h"

namespace dovetail::coordinator {

struct RequestHead {
  bool http_1_0 = false;
  size_t num_hosts = 1;
  absl::string_view repeated;  // a field that came twice and may not: two readers could disagree
  absl::string_view host;
  absl::string_view content_length;
  absl::string_view target;
  absl::string_view expect;
  absl::string_view transfer_encoding;
  absl::string_view content_encoding;
  absl::string_view authorization;
  absl::string_view x_api_key;
};

// The key that a client offers: "Authorization: Bearer KEY", or Anthropic's "x-api-key: KEY".
absl::string_view ApiKeyOf(const RequestHead& head);

// Sets `path` to the target's path, percent-decoded.
std::optional<ApiError> CheckRequestHead(const RequestHead& head, const HttpServerOptions& options,
                                         std::string* path);

ApiError BodyTooLarge(const HttpServerOptions& options);
ApiError HeadersTooLarge(const HttpServerOptions& options);
ApiError RequestTimedOut(absl::string_view part);
ApiError MalformedRequest(absl::string_view why);
ApiError TooManyConnections();

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_REQUEST_HEAD_H_
