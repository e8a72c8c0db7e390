// HTTP messages and the seam between connections and dialects.
//
// A connection (http_connection.h, Boost.Beast) turns bytes into HttpRequests and hands each to an
// HttpHandler together with an HttpReply. A dialect (http_router.h) answers through that reply, at
// once or over time; it knows nothing of sockets, and the connection knows nothing of JSON.
//
// Everything here runs on the I/O thread, except HttpExecutor, which is how other threads get
// there.
#ifndef DOVETAIL_COORDINATOR_HTTP_HTTP_MESSAGE_H_
#define DOVETAIL_COORDINATOR_HTTP_HTTP_MESSAGE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace dovetail::coordinator {

struct HttpRequest {
  std::string method;      // "POST"
  std::string path;        // percent-decoded, without the query: "/v1/models/a/b"
  std::string query;       // as it came, without the question mark: "model=a%2Fb"
  std::string request_id;  // the client's x-request-id, or one that we made
  std::string tenant;      // the name of the key that came with it; "" where none is needed
  std::string body;
  absl::Time received;
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// Content-Length, Date, Connection, x-request-id are the connection's business.
struct HttpResponse {
  int status = 200;
  HttpHeaders headers;
  std::string body;
};

HttpResponse JsonResponse(int status, std::string body);

// One response. Either Send, or StartStream, any number of Write, Finish. After the call was told
// OnGone everything is ignored.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void Send(HttpResponse response) = 0;
  virtual void StartStream(HttpResponse head) = 0;
  virtual void Write(absl::string_view data) = 0;
  virtual void Finish() = 0;
  // Text for the one log line of this request: tokens, finish reason, error.
  virtual void Annotate(std::string note) = 0;
};

// One request that is being answered over time.
class HttpCall {
 public:
  virtual ~HttpCall() = default;
  virtual void OnSilence() = 0;   // nothing was sent for the keep-alive interval
  virtual void OnGone() = 0;      // the client has left or reads too slowly
  virtual void OnShutdown() = 0;  // the server stops: say so, now
};

struct ApiError;

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Before the body is read: may the bearer of `key` (may be empty) have `path`? Sets `tenant`; an
  // error is answered, and the connection closed.
  virtual std::optional<ApiError> Admit(absl::string_view path, absl::string_view key,
                                        std::string* tenant) = 0;
  // `error` as the clients of `path` expect one.
  virtual HttpResponse ErrorFor(absl::string_view path, const ApiError& error) const = 0;
  // Null when `reply` was answered before returning.
  virtual std::shared_ptr<HttpCall> Handle(HttpRequest request,
                                           std::shared_ptr<HttpReply> reply) = 0;
};

// Thread-safe; tasks given after the server stopped are dropped.
class HttpExecutor {
 public:
  virtual ~HttpExecutor() = default;
  virtual void OnIoThread(std::function<void()> task) = 0;
  virtual void OnWorkThread(std::function<void()> task) = 0;  // parsing, tokenising
};

// False where a percent sign is not followed by two hex digits.
bool PercentDecode(absl::string_view text, std::string* out);
// The value of the first parameter of that name, percent-decoded; "" where there is none.
std::string QueryParameter(absl::string_view query, absl::string_view name);
// `offered` if it can be repeated in a header and a log line (1 to 128 visible ASCII characters),
// else a new random id.
std::string ChooseRequestId(absl::string_view offered);

// "http GET /health 200 0.3 ms, NOTE, ID"; whatever the client sent is escaped.
std::string RequestLogLine(absl::string_view method, absl::string_view path, int status,
                           absl::Duration taken, absl::string_view note,
                           absl::string_view request_id);

// Logs that line; probes come every second and say nothing while all is well.
void LogHttpRequest(absl::string_view method, absl::string_view path, int status,
                    absl::Duration taken, absl::string_view note, absl::string_view request_id);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_HTTP_MESSAGE_H_
