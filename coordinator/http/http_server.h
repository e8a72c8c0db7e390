// HttpServer: every HTTP API (OpenAI's, Ollama's, Anthropic's, metrics) on one listening socket,
// with TLS or without.
//
// Threads: one I/O thread owns every connection and never waits; a second thread parses bodies and
// tokenises, so that one long prompt does not delay the streams of others. Generation events arrive
// on the engine's thread and are posted to the I/O thread: the engine never waits for a client.
//
// A client that goes away, or that leaves more than max_unsent_bytes unread, has its generation
// cancelled. What HttpApi borrows outlives the server. Start, Stop and port may be called from any
// thread.
#ifndef DOVETAIL_COORDINATOR_HTTP_HTTP_SERVER_H_
#define DOVETAIL_COORDINATOR_HTTP_HTTP_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/api_keys.h"
#include "coordinator/model_directory.h"
#include "coordinator/tls_identity.h"

namespace dovetail::coordinator {

struct HttpServerOptions {
  std::string listen = "127.0.0.1";  // an IP address, or "localhost"
  int port = 0;                      // 0: any free port, see HttpServer::port()
  TlsIdentity tls;                   // empty: plain HTTP

  int64_t max_body_bytes = 16 << 20;    // more: 413
  int64_t max_header_bytes = 32 << 10;  // more: 431
  int64_t max_target_bytes = 8 << 10;   // more: 414
  int64_t max_unsent_bytes = 1 << 20;  // of one stream; more: the client is too slow and is dropped
  int max_connections = 4096;          // more: 503 and closed

  absl::Duration header_timeout = absl::Seconds(10);  // from the first byte to the last header
  absl::Duration body_timeout = absl::Seconds(60);    // from the headers to the end of the body
  absl::Duration idle_timeout = absl::Seconds(75);    // between requests of one connection
  absl::Duration write_timeout = absl::Seconds(60);   // without progress while sending
  absl::Duration keep_alive_interval =
      absl::Seconds(10);                               // silence before ": keep-alive" in a stream
  absl::Duration request_timeout = absl::Minutes(10);  // of a whole generation
};

struct HealthReport {
  bool ready = false;   // all models are
  std::string state;    // "ok" when ready; otherwise one word, such as "loading"
  std::string message;  // for people; may be empty
  std::vector<std::pair<std::string, std::string>> models;  // of several: name and state
};

struct HttpApi {
  const ModelDirectory* models = nullptr;  // borrowed
  // Called on the I/O thread: must not wait. Null: always ready.
  std::function<HealthReport()> health;
  // The text of /metrics, made on the I/O thread: must not wait. Null: nothing.
  std::function<std::string()> metrics;
  ApiKeys keys;
};

class HttpServer {
 public:
  // InvalidArgument: `listen` is no address, `tls` cannot be used. AlreadyExists: "port 8080 on
  // 127.0.0.1 is in use".
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           HttpApi api);
  ~HttpServer();  // Stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;
  // Closes the listening socket, ends running requests with 503 or an error event, joins both
  // threads.
  void Stop();

 private:
  HttpServer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_HTTP_SERVER_H_
