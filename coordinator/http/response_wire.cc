#include "coordinator/http/response_wire.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace dovetail::coordinator {

absl::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Payload Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 501:
      return "Not Implemented";
    case 504:
      return "Gateway Timeout";
    default:
      return "Unknown";
  }
}

void ResponseWire::Begin(Framing framing) {
  framing_ = std::move(framing);
  chunked_ = complete_ = false;
  status_ = 0;
}

void ResponseWire::AddWhole(const HttpResponse& response, absl::Time now) {
  AppendHead(response, /*stream=*/false, now);
  if (!framing_.head_only) unsent_ += response.body;
  complete_ = true;
}

void ResponseWire::AddHead(const HttpResponse& head, absl::Time now) {
  chunked_ = !framing_.http_1_0;
  if (framing_.http_1_0) framing_.keep_alive = false;
  AppendHead(head, /*stream=*/true, now);
}

void ResponseWire::AddData(absl::string_view data) {
  if (data.empty()) return;  // an empty chunk would end the body
  if (chunked_) {
    absl::StrAppend(&unsent_, absl::Hex(data.size()), "\r\n", data, "\r\n");
  } else {
    absl::StrAppend(&unsent_, data);
  }
}

void ResponseWire::AddEnd() {
  if (chunked_) absl::StrAppend(&unsent_, "0\r\n\r\n");
  complete_ = true;
}

void ResponseWire::Abandon() {
  unsent_.clear();
  complete_ = true;
  framing_.keep_alive = false;
}

void ResponseWire::TakeUnsent(std::string* out) {
  std::swap(*out, unsent_);
  unsent_.clear();
}

void ResponseWire::AppendHead(const HttpResponse& response, bool stream, absl::Time now) {
  status_ = response.status;
  const std::string date = absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", now, absl::UTCTimeZone());
  absl::StrAppend(&unsent_, framing_.http_1_0 ? "HTTP/1.0 " : "HTTP/1.1 ", status_, " ",
                  ReasonPhrase(status_), "\r\nDate: ", date, "\r\nServer: dovetail\r\n",
                  "x-request-id: ", framing_.request_id, "\r\n");
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&unsent_, name, ": ", value, "\r\n");
  }
  if (chunked_) {
    absl::StrAppend(&unsent_, "Transfer-Encoding: chunked\r\n");
  } else if (!stream && status_ != 204) {
    absl::StrAppend(&unsent_, "Content-Length: ", response.body.size(), "\r\n");
  }
  absl::StrAppend(&unsent_, "Connection: ", framing_.keep_alive ? "keep-alive" : "close",
                  "\r\n\r\n");
}

}  // namespace dovetail::coordinator
