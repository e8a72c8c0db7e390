// What the HTTP server's tests share: a server over a real engine, tokenizer and chat template with
// fake workers, and a client that speaks raw bytes.
#ifndef DOVETAIL_TESTS_UNIT_COORDINATOR_HTTP_TEST_SERVER_H_
#define DOVETAIL_TESTS_UNIT_COORDINATOR_HTTP_TEST_SERVER_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/generation.h"
#include "coordinator/http/http_server.h"
#include "coordinator/request_metrics.h"
#include "model/chat_template/chat_template.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/testing/fake_pipeline.h"

namespace dovetail::coordinator {

inline constexpr char kTestModel[] = "org/tiny";
inline constexpr int kTestContext = 1024;

struct TestServerOptions {
  HttpServerOptions http;
  ApiKeys keys;
  int max_queue = 256;
  int max_sequences = 16;
  bool with_pipeline = true;
  std::vector<std::string> more_models;  // names of the same one
};

// Every generated token is a letter that its position in the context decides, so that an answer of
// any length is known.
class TestServer {
 public:
  explicit TestServer(TestServerOptions options = {});
  ~TestServer();

  int port() const { return http->port(); }
  // Waits until the engine has neither requests nor used KV blocks.
  bool WaitIdle(absl::Duration timeout = absl::Seconds(5)) const;
  // Waits until the engine has that many, running or waiting.
  bool WaitRequests(int count) const;
  // With held workers: lets steps come back one by one, and waits until the engine is idle, before
  // 150 tokens were generated. A generation of more than that ends so early only if it was
  // cancelled.
  bool EndsEarly() const;
  static std::string Letters(int prompt_tokens, int num_tokens);

  std::string directory;
  std::unique_ptr<model::GgufFile> file;
  model::ModelConfig config;
  std::unique_ptr<model::Tokenizer> tokenizer;
  std::unique_ptr<model::ChatTemplate> chat_template;
  std::shared_ptr<testing::FakeWorkers> workers;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<GenerationService> generation;
  std::atomic<bool> ready{true};
  RequestMetrics metrics;
  ModelDirectory models;
  std::unique_ptr<HttpServer> http;
};

struct RawResponse {
  int status = 0;                              // 0: there was none
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool ended = false;  // by its length, its last chunk or the connection's end
};

// One connection. Reads fail the test after five seconds.
class RawClient {
 public:
  explicit RawClient(int port);
  ~RawClient() { Close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void Send(const std::string& bytes);
  // Bytes until `wanted` is among them, or the connection ends, or the time is over.
  std::string ReadUntil(const std::string& wanted, absl::Duration timeout = absl::Seconds(5));
  // One response; leaves what follows for the next.
  RawResponse ReadResponse(absl::Duration timeout = absl::Seconds(5));
  // True if the server closes within the timeout, whatever it sends before.
  bool WaitClosed(absl::Duration timeout = absl::Seconds(5));
  void ShutdownSend();
  void Close();

 private:
  // False at the end of the connection or of the time.
  bool ReadMore(absl::Time until);
  int fd_ = -1;
  bool ended_ = false;
  std::string received_;
};

std::string PostBytes(const std::string& path, const std::string& body,
                      const std::string& headers = "");
// One request on a fresh connection.
RawResponse Ask(int port, const std::string& request);
RawResponse Post(int port, const std::string& path, const std::string& body);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_TESTS_UNIT_COORDINATOR_HTTP_TEST_SERVER_H_
