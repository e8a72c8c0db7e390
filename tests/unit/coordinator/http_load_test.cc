// Many clients at once, and clients that mean no good: streams by the thousand, idle connections,
// slowloris, and clients that leave in every phase of a request.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/posix.h"
#include "base/process_memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/coordinator/http_test_server.h"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;

constexpr char kCompletion[] = "/v1/completions";
constexpr char kHealth[] = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
constexpr absl::Duration kPatience = absl::Seconds(120);  // the machine may be busy

using Clients = std::vector<std::unique_ptr<RawClient>>;

Clients Connect(int port, int count) {
  Clients clients;
  for (int i = 0; i < count; ++i) clients.push_back(std::make_unique<RawClient>(port));
  return clients;
}

// The texts of the events of a completion's stream, which must end as streams do.
std::string StreamedText(const RawResponse& response) {
  std::string text;
  bool done = false;
  for (absl::string_view event : absl::StrSplit(response.body, "\n\n", absl::SkipEmpty())) {
    if (!absl::ConsumePrefix(&event, "data: ")) continue;
    if (event == "[DONE]") {
      done = true;
    } else {
      text += json::parse(event).at("choices").at(0).at("text").get<std::string>();
    }
  }
  EXPECT_TRUE(done && response.ended);
  return text;
}

TEST(HttpLoadTest, AThousandStreamsEndRight) {
  constexpr int kStreams = 1000;
  constexpr int kTokens = 12;
  if (RaiseFileLimit() < 2 * kStreams + 100) GTEST_SKIP() << "too few open files are allowed";
  TestServerOptions options;
  options.max_queue = kStreams;
  options.http.header_timeout = kPatience;
  TestServer server(options);
  const Clients clients = Connect(server.port(), kStreams);
  for (int i = 0; i < kStreams; ++i) {
    const std::vector<int> prompt(static_cast<size_t>(1 + i % 7), 50);
    clients[i]->Send(
        PostBytes(kCompletion, absl::StrCat("{\"prompt\":[", absl::StrJoin(prompt, ","),
                                            "],\"stream\":true,\"max_tokens\":", kTokens, "}")));
  }
  for (int i = 0; i < kStreams; ++i) {
    const RawResponse response = clients[i]->ReadResponse(kPatience);
    ASSERT_EQ(response.status, 200) << i << ": " << response.body;
    ASSERT_EQ(StreamedText(response), TestServer::Letters(1 + i % 7, kTokens)) << i;
  }
  EXPECT_TRUE(server.WaitIdle());
  EXPECT_EQ(server.engine->stats().generated_tokens, uint64_t{kStreams * kTokens});
}

TEST(HttpLoadTest, TwoThousandIdleConnections) {
  constexpr int kIdle = 2000;
  if (RaiseFileLimit() < 2 * kIdle + 100) GTEST_SKIP() << "too few open files are allowed";
  TestServerOptions options;
  options.http.header_timeout = kPatience;
  options.http.idle_timeout = kPatience;
  TestServer server(options);
  const uint64_t before = ResidentBytes();
  const Clients clients = Connect(server.port(), kIdle);
  // Half of them have been used before.
  for (int i = 0; i < kIdle; i += 2) clients[i]->Send(kHealth);
  for (int i = 0; i < kIdle; i += 2) {
    ASSERT_EQ(clients[i]->ReadResponse(kPatience).status, 200) << i;
  }
  EXPECT_LT(ResidentBytes() - before, uint64_t{100} << 20);
  EXPECT_EQ(Post(server.port(), kCompletion, R"({"prompt":[50],"max_tokens":5})").status, 200);
  // Those that were silent until now are served as well.
  for (int i = 1; i < kIdle; i += 200) {
    clients[i]->Send(kHealth);
    EXPECT_EQ(clients[i]->ReadResponse(kPatience).status, 200) << i;
  }
}

TEST(HttpLoadTest, SlowlorisIsCutOffAlthoughItGoesOnSending) {
  TestServerOptions options;
  options.http.header_timeout = absl::Milliseconds(400);
  options.http.body_timeout = absl::Milliseconds(400);
  TestServer server(options);
  const Clients headers = Connect(server.port(), 50);
  const Clients bodies = Connect(server.port(), 50);
  for (const auto& client : headers) client->Send("GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ");
  for (const auto& client : bodies) {
    client->Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
  }
  const absl::Time end = absl::Now() + absl::Seconds(1);
  while (absl::Now() < end) {
    for (const auto& client : headers) client->Send("x");
    for (const auto& client : bodies) client->Send(" ");
    EXPECT_EQ(Ask(server.port(), kHealth).status, 200);
    absl::SleepFor(absl::Milliseconds(20));
  }
  for (const auto& client : headers) EXPECT_TRUE(client->WaitClosed(kPatience));
  for (const auto& client : bodies) EXPECT_TRUE(client->WaitClosed(kPatience));
}

TEST(HttpLoadTest, PipelinedRequestsAreNotReadAhead) {
  TestServer server;
  server.workers->Hold();
  RawClient client(server.port());
  const std::string request = PostBytes(kCompletion, R"({"prompt":[50],"max_tokens":3})");
  std::string many;
  for (int i = 0; i < 200; ++i) many += request;
  client.Send(many);
  ASSERT_TRUE(server.WaitRequests(1));
  absl::SleepFor(absl::Milliseconds(100));
  const EngineStats stats = server.engine->stats();
  EXPECT_EQ(stats.running + stats.waiting, 1);  // the others wait for the first one's answer
  server.workers->Release(1000);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(client.ReadResponse(kPatience).status, 200) << i;
}

TEST(HttpLoadTest, WhoLeavesWhileSendingIsForgotten) {
  TestServer server;
  for (const char* bytes :
       {"", "GE", "GET /health HTTP/1.1\r\nHost:", "POST /v1/completions HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{\"prompt\":",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
        "chunked\r\n\r\n5\r\n{\"p"}) {
    RawClient(server.port()).Send(bytes);
  }
  EXPECT_EQ(Ask(server.port(), kHealth).status, 200);
  EXPECT_EQ(server.engine->stats().prompt_tokens, 0u);
}

TEST(HttpLoadTest, WhoLeavesTheQueueNeedsNoStep) {
  TestServerOptions options;
  options.max_sequences = 1;
  TestServer server(options);
  server.workers->Hold();
  RawClient runs(server.port());
  runs.Send(PostBytes(kCompletion, R"({"prompt":[50],"max_tokens":4})"));
  ASSERT_TRUE(server.WaitRequests(1));
  RawClient queued(server.port());
  queued.Send(PostBytes(kCompletion, R"({"prompt":[50],"max_tokens":4})"));
  ASSERT_TRUE(server.WaitRequests(2));
  queued.Close();
  EXPECT_TRUE(server.WaitRequests(1));  // no step has come back
  server.workers->Release(100);
  EXPECT_THAT(runs.ReadResponse().body, ::testing::HasSubstr(TestServer::Letters(1, 4)));
}

// With held workers the first step stays in flight; `steps` come back before the client leaves.
void LeaveAfter(int steps, const std::string& body) {
  TestServer server;
  server.workers->Hold();
  RawClient stays(server.port());
  stays.Send(PostBytes(kCompletion, R"({"prompt":[50],"max_tokens":150})"));
  ASSERT_TRUE(server.WaitRequests(1));
  RawClient leaves(server.port());
  leaves.Send(PostBytes(kCompletion, body));
  ASSERT_TRUE(server.WaitRequests(2));
  server.workers->Release(steps);
  ASSERT_TRUE(server.workers->WaitForSteps(steps + 1));
  leaves.Close();
  ASSERT_TRUE(server.WaitRequests(1));
  // The step in flight may still write into its blocks; with it they are free.
  server.workers->Release(1);
  const absl::Time end = absl::Now() + absl::Seconds(5);
  while (server.engine->stats().kv_blocks_used > 1 && absl::Now() < end) {
    absl::SleepFor(absl::Milliseconds(2));
  }
  EXPECT_EQ(server.engine->stats().kv_blocks_used, 1);  // of the one that stays
  server.workers->Release(1000);
  EXPECT_THAT(stays.ReadResponse().body, ::testing::HasSubstr(TestServer::Letters(1, 150)));
  EXPECT_TRUE(server.WaitIdle());
}

TEST(HttpLoadTest, WhoLeavesInPrefillIsFreeWithinAStep) {
  const std::vector<int> prompt(200, 50);  // several chunks
  const std::string body =
      absl::StrCat("{\"prompt\":[", absl::StrJoin(prompt, ","), "],\"max_tokens\":40}");
  LeaveAfter(1, body);
  LeaveAfter(3, body);
}

TEST(HttpLoadTest, WhoLeavesInDecodeIsFreeWithinAStep) {
  LeaveAfter(6, R"({"prompt":[50,51],"max_tokens":200,"stream":true})");
  LeaveAfter(6, R"({"prompt":[50,51],"max_tokens":200})");
}

}  // namespace
}  // namespace dovetail::coordinator
