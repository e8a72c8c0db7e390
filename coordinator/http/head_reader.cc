#include "coordinator/http/head_reader.h"

namespace dovetail::coordinator {
namespace {

namespace http = boost::beast::http;

// Fields that say where a request ends, whom it is for or who sent it come once.
absl::string_view RepeatedField(const http::request_header<>& message) {
  for (const http::field field : {http::field::host, http::field::content_length,
                                  http::field::transfer_encoding, http::field::authorization}) {
    if (message.count(field) > 1) return View(http::to_string(field));
  }
  return "";
}

}  // namespace

RequestHead ReadHead(const http::request_header<>& message) {
  RequestHead head;
  head.http_1_0 = message.version() < 11;
  head.num_hosts = message.count(http::field::host);
  head.repeated = RepeatedField(message);
  head.host = View(message[http::field::host]);
  head.content_length = View(message[http::field::content_length]);
  head.target = View(message.target());
  head.expect = View(message[http::field::expect]);
  head.transfer_encoding = View(message[http::field::transfer_encoding]);
  head.content_encoding = View(message[http::field::content_encoding]);
  head.authorization = View(message[http::field::authorization]);
  head.x_api_key = View(message["x-api-key"]);
  return head;
}

}  // namespace dovetail::coordinator
