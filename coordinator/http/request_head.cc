#include "coordinator/http/request_head.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/api_keys.h"
#include "coordinator/http/http_message.h"

namespace dovetail::coordinator {
namespace {

ApiError ConnectionError(int status, absl::string_view code, absl::string_view message) {
  ApiError error = InvalidField("", message);
  error.status = status;
  error.code = std::string(code);
  return error;
}

bool IsOneOf(absl::string_view value, absl::string_view allowed) {
  return value.empty() || absl::EqualsIgnoreCase(value, allowed);
}

}  // namespace

absl::string_view ApiKeyOf(const RequestHead& head) {
  return head.authorization.empty() ? head.x_api_key : BearerToken(head.authorization);
}

std::optional<ApiError> CheckRequestHead(const RequestHead& head, const HttpServerOptions& options,
                                         std::string* path) {
  // What a proxy before us could read in another way than we do is not read at all.
  if (!head.repeated.empty()) {
    return MalformedRequest(absl::StrCat("the field ", head.repeated, " comes twice"));
  }
  if (head.num_hosts == 0 && !head.http_1_0) return MalformedRequest("there is no field Host");
  const auto is_space = [](char c) { return c == ' ' || c == '\t'; };
  if (std::any_of(head.host.begin(), head.host.end(), is_space)) {
    return MalformedRequest("the field Host has a space in it");
  }
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (!std::all_of(head.content_length.begin(), head.content_length.end(), is_digit)) {
    return MalformedRequest("Content-Length must be one number");
  }
  if (head.http_1_0 && !head.transfer_encoding.empty()) {
    return MalformedRequest("HTTP/1.0 has no Transfer-Encoding");
  }
  if (static_cast<int64_t>(head.target.size()) > options.max_target_bytes) {
    return ConnectionError(
        414, "target_too_long",
        absl::StrCat("the request target is longer than ", options.max_target_bytes, " bytes"));
  }
  if (!PercentDecode(head.target.substr(0, head.target.find('?')), path)) {
    return ConnectionError(400, "bad_target", "the request target has a bad percent escape");
  }
  if (!IsOneOf(head.expect, "100-continue")) {
    return ConnectionError(417, "bad_expectation",
                           "the only expectation that is met is 100-continue");
  }
  if (!IsOneOf(head.transfer_encoding, "chunked") || !IsOneOf(head.content_encoding, "identity")) {
    return ConnectionError(415, "unsupported_encoding", "request bodies must not be compressed");
  }
  return std::nullopt;
}

ApiError BodyTooLarge(const HttpServerOptions& options) {
  return ConnectionError(
      413, "body_too_large",
      absl::StrCat("the request body is larger than ", options.max_body_bytes, " bytes"));
}

ApiError HeadersTooLarge(const HttpServerOptions& options) {
  return ConnectionError(
      431, "headers_too_large",
      absl::StrCat("the request headers are larger than ", options.max_header_bytes, " bytes"));
}

ApiError RequestTimedOut(absl::string_view part) {
  return ConnectionError(408, "request_timeout",
                         absl::StrCat("the request's ", part, " did not arrive in time"));
}

ApiError MalformedRequest(absl::string_view why) {
  return ConnectionError(400, "malformed_http", absl::StrCat("malformed HTTP request: ", why));
}

ApiError TooManyConnections() {
  ApiError error = ConnectionError(503, "too_many_connections", "too many connections");
  error.type = "server_error";
  error.retry_after_seconds = 1;
  return error;
}

}  // namespace dovetail::coordinator
