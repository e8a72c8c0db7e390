// The server's HTTP: routes, errors, limits, timeouts, keep-alive. Streams are in
// http_stream_test.cc.
#include "coordinator/http/http_server.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/unit/coordinator/http_test_server.h"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using testing::StatusIs;

constexpr char kGet[] = " HTTP/1.1\r\nHost: x\r\n\r\n";

RawResponse Get(int port, const std::string& path) {
  return Ask(port, absl::StrCat("GET ", path, kGet));
}

json ErrorOf(const RawResponse& response) {
  EXPECT_EQ(response.headers.at("content-type"), "application/json");
  return json::parse(response.body).at("error");
}

TEST(HttpServerTest, HealthFollowsTheState) {
  TestServer server;
  const RawResponse ok = Get(server.port(), "/health");
  EXPECT_EQ(ok.status, 200);
  EXPECT_EQ(ok.body, R"({"status":"ok"})");
  server.ready = false;
  const RawResponse loading = Get(server.port(), "/health");
  EXPECT_EQ(loading.status, 503);
  EXPECT_EQ(loading.headers.at("retry-after"), "2");
  EXPECT_EQ(loading.body, R"({"status":"loading","message":"40 %"})");
}

TEST(HttpServerTest, ListsModels) {
  TestServer server;
  const json list = json::parse(Get(server.port(), "/v1/models").body);
  EXPECT_EQ(list.at("object"), "list");
  EXPECT_EQ(list.at("data").at(0).at("id"), kTestModel);
  for (const char* path : {"/v1/models/org/tiny", "/v1/models/org%2Ftiny?x=1"}) {
    EXPECT_EQ(json::parse(Get(server.port(), path).body).at("id"), kTestModel) << path;
  }
  const RawResponse missing = Get(server.port(), "/v1/models/nope");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(ErrorOf(missing).at("code"), "model_not_found");
}

TEST(HttpServerTest, TellsWhatATokenizerElsewhereMustKnow) {
  TestServer server;
  const RawResponse response = Get(server.port(), "/tokenizer_info");
  EXPECT_EQ(response.status, 200);
  const json info = json::parse(response.body);
  const auto id = server.tokenizer->eos();
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(info.at("eos_token"), server.tokenizer->TokenBytes(*id, true));
  EXPECT_EQ(info.at("vocab_size"), server.tokenizer->vocab_size());
  EXPECT_EQ(info.at("model_max_length"), kTestContext);
  EXPECT_EQ(info.at("chat_template"), server.chat_template->source());
  EXPECT_EQ(Post(server.port(), "/tokenizer_info", "{}").status, 405);
}

TEST(HttpServerTest, AnswersAChat) {
  TestServer server;
  const RawResponse response =
      Post(server.port(), "/v1/chat/completions",
           R"({"model":"org/tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":5})");
  ASSERT_EQ(response.status, 200) << response.body;
  const json body = json::parse(response.body);
  EXPECT_THAT(body.at("id").get<std::string>(), MatchesRegex("chatcmpl-[0-9a-z]+"));
  EXPECT_EQ(body.at("object"), "chat.completion");
  EXPECT_EQ(body.at("model"), kTestModel);
  EXPECT_EQ(body.at("system_fingerprint"), "dovetail-cis1-f16");
  const int prompt_tokens = body.at("usage").at("prompt_tokens");
  EXPECT_GT(prompt_tokens, 4);
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 5);
  EXPECT_EQ(body.at("usage").at("total_tokens"), prompt_tokens + 5);
  const json& choice = body.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("content"), TestServer::Letters(prompt_tokens, 5));
  EXPECT_EQ(choice.at("finish_reason"), "length");
  EXPECT_TRUE(response.headers.count("openai-processing-ms"));
}

TEST(HttpServerTest, AnswersCompletionsWithSeveralPromptsAndStop) {
  TestServer server;
  const RawResponse response =
      Post(server.port(), "/v1/completions",
           R"({"prompt":[[50,51],[50,51,52]],"max_tokens":20,"stop":["g","nothing"]})");
  ASSERT_EQ(response.status, 200) << response.body;
  const json body = json::parse(response.body);
  EXPECT_EQ(body.at("object"), "text_completion");
  ASSERT_EQ(body.at("choices").size(), 2u);
  EXPECT_EQ(body.at("choices").at(0).at("text"), "cdef");  // the stop string is left out
  EXPECT_EQ(body.at("choices").at(1).at("text"), "def");
  EXPECT_EQ(body.at("choices").at(1).at("index"), 1);
  EXPECT_EQ(body.at("choices").at(1).at("finish_reason"), "stop");
  EXPECT_EQ(body.at("usage").at("prompt_tokens"), 5);
}

TEST(HttpServerTest, RefusesBadRequestsWithTheRightStatus) {
  TestServer server;
  const struct {
    const char* body;
    int status;
    const char* param;
    const char* code;
    const char* words;
  } kCases[] = {
      {"{\"prompt\": ", 400, nullptr, nullptr, "not valid JSON"},
      {R"({"prompt":"a","max_tokens":-4})", 400, "max_tokens", nullptr,
       "`max_tokens` must be at least 1, got -4"},
      {R"({"prompt":"a","temperature":9})", 400, "temperature", nullptr, "got 9"},
      {R"({"prompt":"a","suffix":"b"})", 400, "suffix", "unsupported_parameter",
       "`suffix` is not supported"},
      {R"({"prompt":"a","model":"x"})", 404, "model", "model_not_found", "`x` does not exist"},
      {R"({"prompt":[9999]})", 400, "prompt", nullptr, "9999"},
      {R"({"prompt":"a","stop":[""]})", 400, "stop", nullptr, "empty"},
  };
  for (const auto& c : kCases) {
    const RawResponse response = Post(server.port(), "/v1/completions", c.body);
    EXPECT_EQ(response.status, c.status) << c.body;
    const json error = ErrorOf(response);
    EXPECT_EQ(error.at("type"), "invalid_request_error");
    EXPECT_EQ(error.at("param"), c.param ? json(c.param) : json(nullptr)) << c.body;
    EXPECT_EQ(error.at("code"), c.code ? json(c.code) : json(nullptr)) << c.body;
    EXPECT_THAT(error.at("message").get<std::string>(), HasSubstr(c.words));
  }
  EXPECT_EQ(server.engine->stats().prompt_tokens, 0u);
}

TEST(HttpServerTest, PromptBeyondTheContextNamesBothLengths) {
  TestServer server;
  std::string ids = "7";
  for (int i = 1; i < kTestContext + 44; ++i) ids += ",7";
  const json error =
      ErrorOf(Post(server.port(), "/v1/completions", absl::StrCat(R"({"prompt":[)", ids, "]}")));
  EXPECT_EQ(error.at("code"), "context_length_exceeded");
  EXPECT_THAT(error.at("message").get<std::string>(),
              HasSubstr(absl::StrCat("maximum context length is ", kTestContext, " tokens")));
  EXPECT_THAT(error.at("message").get<std::string>(),
              HasSubstr(absl::StrCat(kTestContext + 44, " tokens")));
}

TEST(HttpServerTest, LoadingIs503AndAFullQueueIs429) {
  {
    TestServer server({.with_pipeline = false});
    const RawResponse response = Post(server.port(), "/v1/completions", R"({"prompt":"a"})");
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.headers.at("retry-after"), "2");
    EXPECT_EQ(ErrorOf(response).at("type"), "server_error");
  }
  TestServer server({.max_queue = 1, .max_sequences = 1});
  server.workers->Hold();
  std::vector<std::unique_ptr<RawClient>> clients;
  int refused = 0;
  for (int i = 0; i < 4 && refused == 0; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port()));
    clients.back()->Send(PostBytes("/v1/completions", R"({"prompt":"a"})"));
    const RawResponse response = clients.back()->ReadResponse(absl::Milliseconds(300));
    if (response.status == 0) continue;
    ++refused;
    EXPECT_EQ(response.status, 429);
    EXPECT_EQ(response.headers.at("retry-after"), "1");
    EXPECT_EQ(ErrorOf(response).at("type"), "rate_limit_error");
  }
  EXPECT_EQ(refused, 1);
  clients.clear();
  server.workers->Release(100);
  EXPECT_TRUE(server.WaitIdle());
}

TEST(HttpServerTest, TheLowerPriorityIsServedFirst) {
  TestServer server({.max_sequences = 1});
  server.workers->Hold();
  RawClient first(server.port());
  first.Send(PostBytes("/v1/completions", R"({"prompt":[50],"max_tokens":1})"));
  ASSERT_TRUE(server.WaitRequests(1));
  RawClient later(server.port());
  later.Send(PostBytes("/v1/completions", R"({"prompt":[51],"max_tokens":200,"priority":5})"));
  ASSERT_TRUE(server.WaitRequests(2));
  RawClient urgent(server.port());
  urgent.Send(PostBytes("/v1/completions", R"({"prompt":[52],"max_tokens":1,"priority":-5})"));
  ASSERT_TRUE(server.WaitRequests(3));
  // Steps enough for the first and the urgent one, and few of the two hundred tokens.
  server.workers->Release(10);
  EXPECT_EQ(first.ReadResponse().status, 200);
  EXPECT_EQ(urgent.ReadResponse().status, 200);
  EXPECT_EQ(later.ReadResponse(absl::Milliseconds(50)).status, 0);
  const RawResponse refused =
      Post(server.port(), "/v1/completions", R"({"prompt":[50],"priority":101})");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(ErrorOf(refused).at("param"), "priority");
}

TEST(HttpServerTest, LostPipelineAndDeadline) {
  TestServer server;
  server.workers->Hold();
  RawClient client(server.port());
  client.Send(PostBytes("/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(server.WaitRequests(1));
  server.engine->ClearPipeline(absl::UnavailableError("worker cpu:1 died"));
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(ErrorOf(response).at("message"), "worker cpu:1 died");
  EXPECT_EQ(response.headers.at("retry-after"), "2");
  EXPECT_EQ(response.headers.count("x-should-retry"), 0u);

  TestServerOptions options;
  options.http.request_timeout = absl::Milliseconds(100);
  TestServer impatient(options);
  impatient.workers->Hold();
  RawClient late(impatient.port());
  late.Send(PostBytes("/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(impatient.WaitRequests(1));
  absl::SleepFor(absl::Milliseconds(150));
  impatient.workers->Release(100);
  const RawResponse timeout = late.ReadResponse();
  EXPECT_EQ(timeout.status, 504);
  EXPECT_EQ(ErrorOf(timeout).at("type"), "timeout");
  EXPECT_EQ(timeout.headers.at("x-should-retry"), "false");
}

TEST(HttpServerTest, UnknownRoutesAndMethods) {
  TestServer server;
  const RawResponse missing = Get(server.port(), "/v2/x");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(ErrorOf(missing).at("message"), "there is no GET /v2/x");
  const RawResponse wrong = Get(server.port(), "/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST, OPTIONS");
  EXPECT_EQ(Post(server.port(), "/health", "{}").status, 405);
  const RawResponse options = Ask(server.port(), absl::StrCat("OPTIONS /v1/models", kGet));
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "GET, HEAD, OPTIONS");
  EXPECT_EQ(options.headers.count("content-length"), 0u);
  EXPECT_EQ(Ask(server.port(), absl::StrCat("OPTIONS *", kGet)).status, 204);
}

TEST(HttpServerTest, HeadHasNoBody) {
  TestServer server;
  RawClient client(server.port());
  client.Send(absl::StrCat("HEAD /v1/models", kGet, "GET /health", kGet));
  const std::string both = client.ReadUntil(R"({"status":"ok"})");
  EXPECT_EQ(both.find("\"data\""), std::string::npos);
  EXPECT_THAT(both, HasSubstr("\r\n\r\nHTTP/1.1 200 OK"));
}

TEST(HttpServerTest, RequestIdIsEchoedOrMade) {
  TestServer server;
  const RawResponse echoed =
      Ask(server.port(), "GET /health HTTP/1.1\r\nHost: x\r\nX-REQUEST-ID: mine-1\r\n\r\n");
  EXPECT_EQ(echoed.headers.at("x-request-id"), "mine-1");
  EXPECT_THAT(Get(server.port(), "/health").headers.at("x-request-id"),
              MatchesRegex("req_[0-9a-z]+"));
}

TEST(HttpServerTest, KeepAlivePipeliningAndClose) {
  TestServer server;
  RawClient client(server.port());
  const std::string request = PostBytes("/v1/completions", R"({"prompt":[50],"max_tokens":3})");
  client.Send(absl::StrCat(request, "GET /health", kGet, request,
                           "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  for (const char* words : {"\"bcd\"", "\"ok\"", "\"bcd\"", "\"ok\""}) {
    const RawResponse response = client.ReadResponse();
    EXPECT_EQ(response.status, 200);
    EXPECT_THAT(response.body, HasSubstr(words));
  }
  EXPECT_TRUE(client.WaitClosed());
}

TEST(HttpServerTest, Http10ClosesUnlessAsked) {
  TestServer server;
  RawClient client(server.port());
  client.Send("GET /health HTTP/1.0\r\n\r\n");
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("connection"), "close");
  EXPECT_TRUE(client.WaitClosed());
}

TEST(HttpServerTest, ClientThatHalfClosesAfterASimpleRequestIsAnswered) {
  TestServer server;
  RawClient client(server.port());
  client.Send(absl::StrCat("GET /v1/models", kGet));
  client.ShutdownSend();
  EXPECT_EQ(client.ReadResponse().status, 200);
  EXPECT_TRUE(client.WaitClosed());
}

TEST(HttpServerTest, ChunkedBodiesAndExpectContinue) {
  TestServer server;
  const std::string body = R"({"prompt":[50],"max_tokens":3})";
  RawClient chunked(server.port());
  chunked.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (char c : body) chunked.Send(absl::StrCat("1\r\n", std::string(1, c), "\r\n"));
  chunked.Send("0\r\n\r\n");
  EXPECT_EQ(chunked.ReadResponse().status, 200);

  RawClient polite(server.port());
  polite.Send(absl::StrCat(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ",
      body.size(), "\r\n\r\n"));
  EXPECT_EQ(polite.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  polite.Send(body);
  EXPECT_EQ(polite.ReadResponse().status, 200);
}

TEST(HttpServerTest, LimitsOfSize) {
  TestServerOptions options;
  options.http.max_body_bytes = 1000;
  options.http.max_header_bytes = 2000;
  options.http.max_target_bytes = 100;
  TestServer server(options);
  const RawResponse large = Post(server.port(), "/v1/completions", std::string(1001, ' '));
  EXPECT_EQ(large.status, 413);
  EXPECT_EQ(ErrorOf(large).at("message"), "the request body is larger than 1000 bytes");
  EXPECT_EQ(large.headers.at("connection"), "close");
  EXPECT_EQ(Ask(server.port(),
                PostBytes("/v1/completions", std::string(1001, ' '), "x-request-id: mine-2\r\n"))
                .headers.at("x-request-id"),
            "mine-2");

  RawClient chunked(server.port());
  chunked.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: x\r\n",
                            "Transfer-Encoding: chunked\r\n\r\n400\r\n", std::string(1024, ' '),
                            "\r\n"));
  EXPECT_EQ(chunked.ReadResponse().status, 413);

  const RawResponse headers =
      Ask(server.port(),
          absl::StrCat("GET /health HTTP/1.1\r\nX-Big: ", std::string(3000, 'x'), "\r\n\r\n"));
  EXPECT_EQ(headers.status, 431);
  EXPECT_EQ(Get(server.port(), "/" + std::string(200, 'x')).status, 414);
}

TEST(HttpServerTest, MalformedHttpIs400) {
  TestServer server;
  for (const char* bytes : {
           "GARBAGE\r\n\r\n",
           "GET /health HTTP/9.9\r\n\r\n",
           "GET /health HTTP/1.1\r\nno colon\r\n\r\n",
           "GET /%zz HTTP/1.1\r\n\r\n",
           "POST /v1/completions HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
           "POST /v1/completions HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
           "POST /v1/completions HTTP/1.1\r\nContent-Length: 3\r\n"
           "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
       }) {
    RawClient client(server.port());
    client.Send(bytes);
    const RawResponse response = client.ReadResponse();
    EXPECT_EQ(response.status, 400) << bytes;
    EXPECT_TRUE(client.WaitClosed()) << bytes;
  }
  EXPECT_EQ(
      Ask(server.port(), PostBytes("/v1/completions", "x", "Content-Encoding: gzip\r\n")).status,
      415);
  EXPECT_EQ(Get(server.port(), "/health").status, 200);
}

TEST(HttpServerTest, SlowRequestsAreTimedOut) {
  TestServerOptions options;
  options.http.header_timeout = absl::Milliseconds(200);
  options.http.body_timeout = absl::Milliseconds(200);
  options.http.idle_timeout = absl::Milliseconds(400);
  TestServer server(options);
  RawClient silent(server.port());
  RawClient headers(server.port());
  RawClient body(server.port());
  RawClient idle(server.port());
  headers.Send("GET /health HTTP/1.1\r\nX-Slow");
  body.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
  idle.Send(absl::StrCat("GET /health", kGet));
  EXPECT_EQ(idle.ReadResponse().status, 200);
  const RawResponse slow_headers = headers.ReadResponse();
  EXPECT_EQ(slow_headers.status, 408);
  EXPECT_EQ(ErrorOf(slow_headers).at("message"), "the request's headers did not arrive in time");
  EXPECT_EQ(body.ReadResponse().status, 408);
  EXPECT_TRUE(silent.WaitClosed());
  EXPECT_TRUE(idle.WaitClosed());
}

TEST(HttpServerTest, ConnectionsAreLimited) {
  TestServerOptions options;
  options.http.max_connections = 2;
  TestServer server(options);
  RawClient first(server.port());
  RawClient second(server.port());
  for (RawClient* client : {&first, &second}) {
    client->Send(absl::StrCat("GET /health", kGet));
    EXPECT_EQ(client->ReadResponse().status, 200);
  }
  RawClient third(server.port());
  const RawResponse refused = third.ReadResponse();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(ErrorOf(refused).at("code"), "too_many_connections");
  third.Close();
  first.Close();
  // A place is free again as soon as the server has noticed.
  int status = 503;
  for (int i = 0; i < 100 && status == 503; ++i) {
    status = Get(server.port(), "/health").status;
    if (status == 503) absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(status, 200);
}

TEST(HttpServerTest, EightClientsAtOnceGetTheirOwnAnswers) {
  TestServer server;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([i, &server] {
      std::string ids = "50";
      for (int k = 0; k < i; ++k) ids += ",51";
      for (int round = 0; round < 5; ++round) {
        const RawResponse response =
            Post(server.port(), "/v1/completions",
                 absl::StrCat(R"({"max_tokens":40,"prompt":[)", ids, "]}"));
        EXPECT_EQ(json::parse(response.body).at("choices").at(0).at("text"),
                  TestServer::Letters(i + 1, 40));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(server.WaitIdle());
  EXPECT_TRUE(server.workers->errors().empty());
}

TEST(HttpServerTest, ListenErrorsNameTheAddress) {
  TestServer server;
  HttpServerOptions options;
  options.port = server.port();
  EXPECT_THAT(HttpServer::Start(options, HttpApi()),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       absl::StrCat("port ", server.port(), " on 127.0.0.1 is in use")));
  options.port = 0;
  options.listen = "not-an-address";
  EXPECT_THAT(HttpServer::Start(options, HttpApi()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "listen must be an IP address or localhost, got `not-an-address`"));
}

TEST(HttpServerTest, StopEndsEverything) {
  TestServer server;
  server.workers->Hold();
  RawClient waiting(server.port());
  RawClient idle(server.port());
  waiting.Send(PostBytes("/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(server.WaitRequests(1));
  const absl::Time begin = absl::Now();
  server.http->Stop();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
  const RawResponse response = waiting.ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(ErrorOf(response).at("message"), "the server is shutting down");
  EXPECT_TRUE(idle.WaitClosed());
  server.workers->Release(10);
  EXPECT_TRUE(server.WaitIdle());
}

}  // namespace
}  // namespace dovetail::coordinator
