// Server-sent events over the server: order and form of chunks, keep-alive, clients that leave or
// do not read.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/coordinator/http_test_server.h"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kChat[] = "/v1/chat/completions";
constexpr char kCompletion[] = "/v1/completions";
constexpr char kChatBody[] =
    R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"stream":true,)"
    R"("stream_options":{"include_usage":true}})";
constexpr char kLongBody[] = R"({"prompt":[50],"max_tokens":200,"stream":true})";

// The data of the events of a stream; every line must be data, a comment or empty.
std::vector<std::string> Events(const std::string& body) {
  std::vector<std::string> events;
  for (absl::string_view block : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
    EXPECT_EQ(block.find('\n'), absl::string_view::npos) << block;
    if (absl::ConsumePrefix(&block, "data: ")) {
      events.emplace_back(block);
    } else {
      EXPECT_EQ(block, ": keep-alive");
    }
  }
  return events;
}

TEST(HttpStreamTest, ChatChunksInOrder) {
  TestServer server;
  const RawResponse response = Post(server.port(), kChat, kChatBody);
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.headers.at("content-type"), HasSubstr("text/event-stream"));
  EXPECT_EQ(response.headers.at("cache-control"), "no-cache");
  EXPECT_EQ(response.headers.at("x-accel-buffering"), "no");
  EXPECT_EQ(response.headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(response.headers.at("connection"), "keep-alive");
  EXPECT_TRUE(response.ended);

  const std::vector<std::string> events = Events(response.body);
  ASSERT_GE(events.size(), 5u);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string text;
  const json first = json::parse(events[0]);
  EXPECT_EQ(first.at("choices").at(0).at("delta"),
            json::parse(R"({"role":"assistant","content":""})"));
  const json usage = json::parse(events[events.size() - 2]);
  EXPECT_TRUE(usage.at("choices").empty());
  EXPECT_EQ(usage.at("usage").at("completion_tokens"), 4);
  const json last = json::parse(events[events.size() - 3]);
  EXPECT_EQ(last.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(last.at("choices").at(0).at("delta"), json::object());
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json chunk = json::parse(events[i]);
    for (const char* key : {"id", "created", "model", "object", "system_fingerprint"}) {
      EXPECT_EQ(chunk.at(key), first.at(key));
    }
    EXPECT_EQ(chunk.at("usage").is_null(), i + 2 < events.size());
    if (i == 0 || chunk.at("choices").empty()) continue;
    const json& delta = chunk.at("choices").at(0).at("delta");
    EXPECT_EQ(delta.count("role"), 0u);
    text += delta.value("content", "");
  }
  EXPECT_EQ(text, TestServer::Letters(usage.at("usage").at("prompt_tokens"), 4));
}

TEST(HttpStreamTest, CompletionChunksOfTwoPrompts) {
  TestServer server;
  const RawResponse response =
      Post(server.port(), kCompletion, R"({"prompt":[[50],[50,51]],"max_tokens":9,"stream":true})");
  std::string texts[2];
  int finished = 0;
  const std::vector<std::string> events = Events(response.body);
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json chunk = json::parse(events[i]);
    EXPECT_EQ(chunk.count("usage"), 0u);
    const json& choice = chunk.at("choices").at(0);
    texts[choice.at("index").get<int>()] += choice.at("text").get<std::string>();
    finished += choice.at("finish_reason") == "length";
  }
  EXPECT_EQ(texts[0], TestServer::Letters(1, 9));
  EXPECT_EQ(texts[1], TestServer::Letters(2, 9));
  EXPECT_EQ(finished, 2);
  EXPECT_EQ(events.back(), "[DONE]");
}

// The client library takes the first chunk that it sees for choice 0, and adds strings up.
TEST(HttpStreamTest, ChoicesOfOnePromptBeginInOrder) {
  TestServer server;
  const RawResponse response =
      Post(server.port(), kChat,
           R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"n":3,"stream":true,)"
           R"("stream_options":{"include_usage":true}})");
  const std::vector<std::string> events = Events(response.body);
  std::vector<int> roles(3), finished(3);
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const json choice = json::parse(events[i]).at("choices").at(0);
    const int index = choice.at("index");
    if (i < 3) {
      EXPECT_EQ(index, static_cast<int>(i));
    }
    roles[index] += choice.at("delta").count("role");
    finished[index] += choice.at("finish_reason") == "length";
  }
  EXPECT_EQ(roles, std::vector<int>({1, 1, 1}));
  EXPECT_EQ(finished, std::vector<int>({1, 1, 1}));
  const json usage = json::parse(events[events.size() - 2]).at("usage");
  EXPECT_EQ(usage.at("completion_tokens"), 9);
  EXPECT_EQ(usage.at("total_tokens"), usage.at("prompt_tokens").get<int>() + 9)
      << "the prompt counts once";
}

TEST(HttpStreamTest, CallsOfToolsAsTheClientLibraryAddsThemUp) {
  TestServer server;
  const std::string fields =
      R"("messages":[{"role":"user","content":"hi"}],"max_tokens":500,"tools":[{"type":)"
      R"("function","function":{"name":"f","parameters":{"type":"object","properties":)"
      R"({"n":{"enum":[7]}},"required":["n"],"additionalProperties":false}}}],)"
      R"("tool_choice":{"type":"function","function":{"name":"f"}})";
  const RawResponse response =
      Post(server.port(), kChat, absl::StrCat("{", fields, ",\"stream\":true}"));
  ASSERT_EQ(response.status, 200) << response.body;
  const std::vector<std::string> events = Events(response.body);
  std::string arguments, finish;
  int heads = 0;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const json choice = json::parse(events[i]).at("choices").at(0);
    if (!choice.at("finish_reason").is_null()) finish = choice.at("finish_reason");
    const json& delta = choice.at("delta");
    EXPECT_TRUE(delta.value("content", "").empty()) << delta;
    if (delta.count("tool_calls") == 0) continue;
    for (const json& call : delta.at("tool_calls")) {
      EXPECT_EQ(call.at("index"), 0);
      const bool head = heads == 0;
      EXPECT_EQ(call.count("id"), head) << "once only";
      EXPECT_EQ(call.count("type"), head);
      EXPECT_EQ(call.at("function").count("name"), head);
      heads += call.count("id");
      arguments += call.at("function").at("arguments").get<std::string>();
    }
  }
  EXPECT_EQ(heads, 1);
  EXPECT_EQ(finish, "tool_calls");
  EXPECT_EQ(json::parse(arguments), json::parse(R"({"n":7})"));
  const RawResponse whole = Post(server.port(), kChat, absl::StrCat("{", fields, "}"));
  const json message = json::parse(whole.body).at("choices").at(0).at("message");
  EXPECT_TRUE(message.at("content").is_null());
  EXPECT_EQ(
      json::parse(message.at("tool_calls").at(0).at("function").at("arguments").get<std::string>()),
      json::parse(R"({"n":7})"));
}

// lm-eval's local-completions: the logprobs of the prompt's tokens, given as ids.
TEST(HttpStreamTest, EchoedPromptsTellTheirLogprobs) {
  TestServer server;
  for (const int max_tokens : {0, 1}) {
    const RawResponse response =
        Post(server.port(), kCompletion,
             absl::StrCat(R"({"prompt":[[50,51,52],[60,61]],"max_tokens":)", max_tokens,
                          R"(,"logprobs":1,"echo":true,"temperature":0,"seed":1234})"));
    ASSERT_EQ(response.status, 200) << response.body;
    const json choices = json::parse(response.body).at("choices");
    ASSERT_EQ(choices.size(), 2u);
    const size_t lengths[] = {3, 2};
    for (size_t i = 0; i < 2; ++i) {
      const json& logprobs = choices[i].at("logprobs");
      for (const char* key : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
        EXPECT_EQ(logprobs.at(key).size(), lengths[i] + max_tokens) << key;
      }
      EXPECT_TRUE(logprobs.at("token_logprobs")[0].is_null());
      EXPECT_TRUE(logprobs.at("token_logprobs")[1].is_number());
      EXPECT_EQ(logprobs.at("top_logprobs")[1].size(), 1u);
    }
  }
}

TEST(HttpStreamTest, LogprobsOfAStreamAddUpToTheWhole) {
  TestServer server;
  const std::string fields =
      R"("messages":[{"role":"user","content":"hi"}],"max_tokens":5,"logprobs":true,)"
      R"("top_logprobs":2)";
  const json whole = json::parse(Post(server.port(), kChat, absl::StrCat("{", fields, "}")).body);
  json content = json::array();
  const RawResponse stream =
      Post(server.port(), kChat, absl::StrCat("{", fields, ",\"stream\":true}"));
  for (const std::string& event : Events(stream.body)) {
    if (event == "[DONE]") continue;
    const json logprobs = json::parse(event).at("choices").at(0).at("logprobs");
    if (logprobs.is_null()) continue;
    for (const json& token : logprobs.at("content")) content.push_back(token);
  }
  EXPECT_EQ(content.size(), 5u);
  EXPECT_EQ(content, whole.at("choices").at(0).at("logprobs").at("content"));
}

TEST(HttpStreamTest, AFormatIsRefusedBeforeTheStreamBegins) {
  TestServer server;
  const RawResponse response =
      Post(server.port(), kChat,
           R"({"messages":[{"role":"user","content":"hi"}],"stream":true,"response_format":)"
           R"({"type":"json_schema","json_schema":{"name":"n","schema":{"type":"nonsense"}}}})");
  EXPECT_EQ(response.status, 400);
  const json error = json::parse(response.body).at("error");
  EXPECT_EQ(error.at("param"), "response_format");
  EXPECT_EQ(error.at("type"), "invalid_request_error");
}

TEST(HttpStreamTest, ConnectionServesTheNextRequestAfterAStream) {
  TestServer server;
  RawClient client(server.port());
  for (int i = 0; i < 3; ++i) {
    client.Send(PostBytes(kChat, kChatBody));
    const RawResponse response = client.ReadResponse();
    EXPECT_TRUE(response.ended);
    EXPECT_TRUE(absl::EndsWith(response.body, "data: [DONE]\n\n"));
  }
}

TEST(HttpStreamTest, Http10StreamEndsWithTheConnection) {
  TestServer server;
  const RawResponse response =
      Ask(server.port(), absl::StrCat("POST /v1/completions HTTP/1.0\r\nContent-Length: ",
                                      sizeof(kLongBody) - 1, "\r\n\r\n", kLongBody));
  EXPECT_EQ(response.headers.count("transfer-encoding"), 0u);
  EXPECT_TRUE(absl::EndsWith(response.body, "data: [DONE]\n\n"));
}

TEST(HttpStreamTest, EarlyErrorsHaveTheirStatus) {
  TestServer server;
  EXPECT_EQ(Post(server.port(), kCompletion, R"({"prompt":"a","top_p":7,"stream":true})").status,
            400);
  server.workers->Hold();
  RawClient client(server.port());
  client.Send(PostBytes(kCompletion, kLongBody));
  ASSERT_TRUE(server.WaitRequests(1));
  server.engine->ClearPipeline(absl::UnavailableError("worker cpu:0 died"));
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(json::parse(response.body).at("error").at("message"), "worker cpu:0 died");
}

TEST(HttpStreamTest, LateErrorsAreEventsAndTheStreamEndsProperly) {
  TestServer server;
  server.workers->Hold();
  server.workers->Release(3);
  RawClient client(server.port());
  client.Send(PostBytes(kCompletion, kLongBody));
  ASSERT_TRUE(server.workers->WaitForSteps(4));
  server.engine->ClearPipeline(absl::UnavailableError("worker cpu:0 died"));
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.ended);
  const std::vector<std::string> events = Events(response.body);
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(json::parse(events.back()).at("error").at("message"), "worker cpu:0 died");
  EXPECT_EQ(response.body.find("[DONE]"), std::string::npos);
}

TEST(HttpStreamTest, KeepAliveComesWhileNothingHappens) {
  TestServerOptions options;
  options.http.keep_alive_interval = absl::Milliseconds(50);
  TestServer server(options);
  server.workers->Hold();
  RawClient client(server.port());
  client.Send(PostBytes(kChat, kChatBody));
  ASSERT_TRUE(server.WaitRequests(1));
  absl::SleepFor(absl::Milliseconds(180));
  server.workers->Release(100);
  const RawResponse response = client.ReadResponse();
  EXPECT_TRUE(absl::StartsWith(response.body, ": keep-alive\n\n: keep-alive\n\n"));
  EXPECT_EQ(Events(response.body).back(), "[DONE]");
}

TEST(HttpStreamTest, WithoutAStreamNothingIsSentBeforeTheAnswer) {
  TestServerOptions options;
  options.http.keep_alive_interval = absl::Milliseconds(20);
  TestServer server(options);
  server.workers->Hold();
  RawClient client(server.port());
  client.Send(PostBytes(kCompletion, R"({"prompt":[50],"max_tokens":2})"));
  EXPECT_EQ(client.ReadUntil("HTTP", absl::Milliseconds(100)), "");
  server.workers->Release(100);
  EXPECT_EQ(client.ReadResponse().status, 200);
}

TEST(HttpStreamTest, ClientThatLeavesIsCancelledAtOnce) {
  for (const char* body : {kLongBody, R"({"prompt":[50],"max_tokens":200})"}) {
    TestServer server;
    server.workers->Hold();
    RawClient client(server.port());
    client.Send(PostBytes(kCompletion, body));
    ASSERT_TRUE(server.WaitRequests(1));
    client.Close();
    EXPECT_TRUE(server.EndsEarly()) << body;
  }
}

TEST(HttpStreamTest, HalfCloseDuringAStreamCounts) {
  TestServer server;
  server.workers->Hold();
  server.workers->Release(2);
  RawClient client(server.port());
  client.Send(PostBytes(kCompletion, kLongBody));
  EXPECT_THAT(client.ReadUntil("\"text\""), HasSubstr("200 OK"));
  client.ShutdownSend();
  EXPECT_TRUE(client.WaitClosed());
  EXPECT_TRUE(server.EndsEarly());
}

TEST(HttpStreamTest, OneClientsLeavingHarmsNoOther) {
  TestServer server;
  server.workers->Hold();
  RawClient stays(server.port());
  stays.Send(PostBytes(kCompletion, kLongBody));
  ASSERT_TRUE(server.WaitRequests(1));
  {
    RawClient leaves(server.port());
    leaves.Send(PostBytes(kCompletion, kLongBody));
    ASSERT_TRUE(server.WaitRequests(2));
  }
  server.workers->Release(1000);
  const RawResponse response = stays.ReadResponse();
  EXPECT_TRUE(response.ended);
  std::string text;
  const std::vector<std::string> events = Events(response.body);
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    text += json::parse(events[i]).at("choices").at(0).at("text").get<std::string>();
  }
  EXPECT_EQ(text, TestServer::Letters(1, 200));
  EXPECT_TRUE(server.WaitIdle());
}

TEST(HttpStreamTest, SlowReaderIsDropped) {
  TestServerOptions options;
  options.http.max_unsent_bytes = 4 << 10;
  TestServer server(options);
  RawClient client(server.port());
  // Streams one after the other on a connection that nobody reads fill what the kernel holds for it
  // (a few MiB), and then what the server does.
  constexpr int kStreams = 400;
  std::string requests;
  for (int i = 0; i < kStreams; ++i) requests += PostBytes(kCompletion, kLongBody);
  client.Send(requests);
  uint64_t generated = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t before = std::exchange(generated, server.engine->stats().generated_tokens);
    if (before == generated && before > 0) break;
    absl::SleepFor(absl::Milliseconds(300));
  }
  EXPECT_TRUE(server.WaitIdle());
  EXPECT_LT(generated, kStreams * 200u);
  EXPECT_TRUE(client.WaitClosed());
  EXPECT_EQ(Post(server.port(), kChat, kChatBody).status, 200);
}

}  // namespace
}  // namespace dovetail::coordinator
