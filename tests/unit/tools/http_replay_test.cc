#include "tools/dovetail/http_replay.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/coordinator/http_test_server.h"

namespace dovetail::tools {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

TEST(HttpReplayTest, Urls) {
  const auto target = ParseHttpUrl("http://127.0.0.1:8080");
  ASSERT_OK(target);
  EXPECT_EQ(target->host, "127.0.0.1");
  EXPECT_EQ(target->port, "8080");
  EXPECT_EQ(target->path, "/v1/completions");
  ASSERT_OK(ParseHttpUrl("http://[::1]:1/"));
  EXPECT_EQ(ParseHttpUrl("http://[::1]:1/")->host, "::1");
  EXPECT_EQ(ParseHttpUrl("http://host:80/behind/a/proxy")->path, "/behind/a/proxy/v1/completions");
  for (const char* bad : {"", "127.0.0.1:80", "https://host:1", "http://host", "http://:80",
                          "http://host:0", "http://host:65536", "http://host:x/"}) {
    EXPECT_THAT(ParseHttpUrl(bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         absl::StrCat("--url must be as http://127.0.0.1:8080, got `", bad, "`")));
  }
}

std::string Chunk(absl::string_view text) {
  return absl::StrCat(absl::Hex(text.size()), "\r\n", text, "\r\n");
}

constexpr char kHead[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string Answer() {
  return absl::StrCat(
      kHead, Chunk("data: {\"choices\":[{\"text\":\"a\"}]}\n\n"),
      Chunk("data: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: {\"choi"),
      Chunk("ces\":[{\"text\":\"\"}]}\n\n: a comment\n\n"),
      Chunk("data: {\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\ndata: [DONE]\n\n"),
      "0\r\n\r\n");
}

TEST(AnswerReaderTest, AnyCutOfTheBytesIsTheSameAnswer) {
  const std::string bytes = Answer();
  for (size_t step = 1; step <= bytes.size(); ++step) {
    AnswerReader reader;
    for (size_t at = 0; at < bytes.size(); at += step) {
      ASSERT_FALSE(reader.done() && at < bytes.find("[DONE]"));
      ASSERT_OK(reader.Read(absl::string_view(bytes).substr(at, step), absl::UnixEpoch()));
    }
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(reader.answer().generated_tokens, 3);
    EXPECT_EQ(reader.answer().text_times.size(), 2u) << "no time for an event without text";
  }
}

TEST(AnswerReaderTest, EventsHaveTheTimeAtWhichTheyWereWhole) {
  AnswerReader reader;
  const absl::Time start = absl::UnixEpoch();
  ASSERT_OK(reader.Read("HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\":[{\"te", start));
  ASSERT_OK(reader.Read("xt\":\"a\"}]}\n", start + absl::Seconds(1)));
  EXPECT_THAT(reader.answer().text_times, ::testing::ElementsAre(start + absl::Seconds(1)));
}

TEST(AnswerReaderTest, WhatIsNoAnswerIsAnError) {
  const auto read = [](absl::string_view bytes) {
    return AnswerReader().Read(bytes, absl::UnixEpoch());
  };
  const absl::StatusCode code = absl::StatusCode::kUnavailable;
  EXPECT_THAT(read("HTTP/1.1 429 Too Many Requests\r\n\r\n{\"error\":\"full\"}"),
              StatusIs(code, HasSubstr("429 too many requests {\"error\":\"full\"}")));
  EXPECT_THAT(read("SSH-2.0\r\n\r\n"), StatusIs(code, HasSubstr("not HTTP")));
  EXPECT_THAT(read(std::string(100'000, 'x')), StatusIs(code, HasSubstr("head is too long")));
  EXPECT_THAT(read(absl::StrCat(kHead, "zz\r\n")), StatusIs(code, HasSubstr("bad chunk")));
  EXPECT_THAT(read(absl::StrCat(kHead, "ffffffff\r\n")), StatusIs(code, HasSubstr("bad chunk")));
  EXPECT_THAT(read(absl::StrCat(kHead, Chunk("data: {\"error\":{\"message\":\"gone\"}}\n\n"))),
              StatusIs(code, HasSubstr("gone")));
  EXPECT_THAT(read(absl::StrCat(kHead, Chunk("data: nonsense\n\n"))),
              StatusIs(code, HasSubstr("nonsense")));
  EXPECT_THAT(read(absl::StrCat(kHead, Chunk("data: {\"choices\":[]}\n\n"), "0\r\n\r\n")),
              StatusIs(code, HasSubstr("ended without [DONE]")));
}

TEST(HttpReplayTest, AServersAnswersComeInTime) {
  coordinator::TestServer server;
  const auto target = ParseHttpUrl(absl::StrCat("http://127.0.0.1:", server.port()));
  ASSERT_OK(target);
  std::vector<ReplayRequest> requests;
  for (int i = 0; i < 20; ++i) {
    requests.push_back(
        {std::vector<int32_t>(static_cast<size_t>(1 + i), 50), 1 + i, absl::Milliseconds(5 * i)});
  }
  const absl::Time start = absl::Now();
  const auto answers = ReplayOverHttp(*target, requests, kPatience);
  ASSERT_OK(answers);
  for (int i = 0; i < 20; ++i) {
    const ReplayAnswer& answer = (*answers)[i];
    EXPECT_TRUE(answer.whole);
    EXPECT_EQ(answer.generated_tokens, 1 + i);
    EXPECT_EQ(answer.text_times.size(), static_cast<size_t>(1 + i)) << "each token is a letter";
    EXPECT_GE(answer.text_times.front(), answer.submitted);
    EXPECT_GE(answer.submitted, start + requests[i].at);
  }
  EXPECT_TRUE(server.WaitIdle());
}

TEST(HttpReplayTest, ARefusedRequestIsNamed) {
  coordinator::TestServer server;
  const auto target = ParseHttpUrl(absl::StrCat("http://127.0.0.1:", server.port()));
  ASSERT_OK(target);
  const std::vector<ReplayRequest> requests = {
      {{50}, 2, absl::ZeroDuration()}, {std::vector<int32_t>(5000, 50), 2, absl::ZeroDuration()}};
  EXPECT_THAT(ReplayOverHttp(*target, requests, kPatience),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("request 2 of the trace: the server refused: 400")));
}

TEST(HttpReplayTest, AnswersAreCutSomeTimeAfterTheLastRequest) {
  coordinator::TestServer held;
  held.workers->Hold();
  const auto slow = ParseHttpUrl(absl::StrCat("http://127.0.0.1:", held.port()));
  const absl::Time start = absl::Now();
  const absl::Duration last = absl::Milliseconds(200);
  const absl::Duration patience = absl::Milliseconds(100);
  const auto answers =
      ReplayOverHttp(*slow, {{{50}, 2, absl::ZeroDuration()}, {{50}, 2, last}}, patience);
  ASSERT_OK(answers);
  // The waits are measured by another clock than absl::Now(), which may be slewed.
  EXPECT_GE(absl::Now(), start + last + patience - absl::Milliseconds(10));
  for (const ReplayAnswer& answer : *answers) {
    EXPECT_FALSE(answer.whole);
    EXPECT_EQ(answer.generated_tokens, 0);
    EXPECT_TRUE(answer.text_times.empty());
  }
}

TEST(HttpReplayTest, NobodyListens) {
  const auto answers = ReplayOverHttp({"127.0.0.1", "1", "/v1/completions"},
                                      {{{50}, 2, absl::ZeroDuration()}}, kPatience);
  EXPECT_THAT(std::string(answers.status().message()),
              HasSubstr("request 1 of the trace: connect to the server"));
}

}  // namespace
}  // namespace dovetail::tools
