#include "coordinator/http/http_message.h"
#include "coordinator/http/request_head.h"
#include "coordinator/http/response_wire.h"
#include "coordinator/http/retry_estimator.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::MatchesRegex;
using ::testing::Not;

const absl::Time kNow = absl::FromUnixSeconds(1700000000);

std::string TakeAll(ResponseWire* wire) {
  std::string out;
  wire->TakeUnsent(&out);
  EXPECT_EQ(wire->unsent_bytes(), 0u);
  return out;
}

TEST(ResponseWireTest, WholeResponse) {
  ResponseWire wire;
  wire.Begin({.request_id = "r1", .keep_alive = true});
  EXPECT_FALSE(wire.complete());
  wire.AddWhole(JsonResponse(404, "{}"), kNow);
  EXPECT_TRUE(wire.complete());
  EXPECT_EQ(wire.status(), 404);
  EXPECT_EQ(TakeAll(&wire),
            "HTTP/1.1 404 Not Found\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: dovetail\r\n"
            "x-request-id: r1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            "Connection: keep-alive\r\n\r\n{}");
}

TEST(ResponseWireTest, HeadHasTheLengthAndNoBody) {
  ResponseWire wire;
  wire.Begin({.request_id = "r1", .head_only = true});
  wire.AddWhole(JsonResponse(200, "12345"), kNow);
  const std::string text = TakeAll(&wire);
  EXPECT_NE(text.find("Content-Length: 5\r\n"), std::string::npos);
  EXPECT_TRUE(text.ends_with("Connection: close\r\n\r\n")) << text;
}

TEST(ResponseWireTest, StreamIsChunked) {
  ResponseWire wire;
  wire.Begin({.request_id = "r1", .keep_alive = true});
  wire.AddHead(HttpResponse(), kNow);
  const std::string head = TakeAll(&wire);
  EXPECT_NE(head.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(head.find("Content-Length"), std::string::npos);
  wire.AddData("");
  wire.AddData(std::string(26, 'x'));
  wire.AddEnd();
  EXPECT_EQ(TakeAll(&wire), "1a\r\n" + std::string(26, 'x') + "\r\n0\r\n\r\n");
  EXPECT_TRUE(wire.keep_alive());
}

TEST(ResponseWireTest, Http10StreamEndsWithTheConnection) {
  ResponseWire wire;
  wire.Begin({.request_id = "r1", .keep_alive = true, .http_1_0 = true});
  wire.AddHead(HttpResponse(), kNow);
  const std::string head = TakeAll(&wire);
  EXPECT_TRUE(head.starts_with("HTTP/1.0 200 OK\r\n"));
  EXPECT_EQ(head.find("chunked"), std::string::npos);
  EXPECT_FALSE(wire.keep_alive());
  wire.AddData("abc");
  wire.AddEnd();
  EXPECT_EQ(TakeAll(&wire), "abc");
}

TEST(ResponseWireTest, AbandonDropsWhatIsUnsent) {
  ResponseWire wire;
  wire.Begin({.request_id = "r1", .keep_alive = true});
  wire.AddHead(HttpResponse(), kNow);
  wire.Abandon();
  EXPECT_TRUE(wire.complete());
  EXPECT_FALSE(wire.keep_alive());
  EXPECT_EQ(TakeAll(&wire), "");
}

TEST(HttpMessageTest, PercentDecode) {
  std::string out;
  EXPECT_TRUE(PercentDecode("/a%2Fb%2f%41", &out));
  EXPECT_EQ(out, "/a/b/A");
  for (const char* bad : {"%", "%4", "%zz", "a%4g"}) EXPECT_FALSE(PercentDecode(bad, &out)) << bad;
}

TEST(HttpMessageTest, RequestIdIsEchoedOrMade) {
  EXPECT_EQ(ChooseRequestId("abc-123"), "abc-123");
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\tb"),
                                 std::string("\xc3\xa9"), std::string(129, 'x')}) {
    EXPECT_THAT(ChooseRequestId(bad), MatchesRegex("req_[0-9a-z]+")) << bad;
  }
  EXPECT_THAT(ChooseRequestId(""), Not(ChooseRequestId("")));
}

TEST(HttpMessageTest, LogLineEscapesWhatTheClientSent) {
  EXPECT_EQ(RequestLogLine("GET", "/a\nb", 404, absl::Milliseconds(2), "no\r\nway", "r1"),
            "http GET /a\\x0ab 404 2.0 ms, no\\x0d\\x0away, r1");
}

TEST(RequestHeadTest, ChecksTargetAndEncodings) {
  HttpServerOptions options;
  std::string path;
  EXPECT_FALSE(CheckRequestHead({.target = "/m/a%20b?x=%zz"}, options, &path).has_value());
  EXPECT_EQ(path, "/m/a b");
  EXPECT_FALSE(CheckRequestHead({.target = "/",
                                 .expect = "100-Continue",
                                 .transfer_encoding = "Chunked",
                                 .content_encoding = "identity"},
                                options, &path)
                   .has_value());
  options.max_target_bytes = 5;
  EXPECT_EQ(CheckRequestHead({.target = "/12345"}, options, &path)->status, 414);
  EXPECT_EQ(CheckRequestHead({.target = "/%2"}, options, &path)->status, 400);
  EXPECT_EQ(CheckRequestHead({.target = "/", .expect = "magic"}, options, &path)->status, 417);
  EXPECT_EQ(CheckRequestHead({.target = "/", .content_encoding = "gzip"}, options, &path)->status,
            415);
  EXPECT_EQ(CheckRequestHead({.target = "/", .transfer_encoding = "gzip, chunked"}, options, &path)
                ->status,
            415);
}

TEST(RetryEstimatorTest, GrowsWithTheQueueAndIsBounded) {
  RetryEstimator retry;
  EngineStats stats;
  EXPECT_EQ(retry.Seconds(stats), 1);
  retry.AddFinished(4);
  stats.running = 2;
  stats.waiting = 3;
  EXPECT_EQ(retry.Seconds(stats), 6);
  stats.waiting = 10000;
  EXPECT_EQ(retry.Seconds(stats), RetryEstimator::kMaxSeconds);
}

}  // namespace
}  // namespace dovetail::coordinator
