#include "tools/dovetail/trace.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::tools {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kTrace[] =
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:50.9305900,3960,109\r\n"
    "\r\n"
    "2023-11-16 18:15:50.9305900,7,1\r\n";

TEST(TraceTest, ReadsTimesAndLengths) {
  ASSERT_OK_AND_ASSIGN(const auto requests, ParseTrace(kTrace, "t", {}));
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].at, absl::ZeroDuration());
  EXPECT_EQ(requests[0].prompt_tokens, 374);
  EXPECT_EQ(requests[0].generated_tokens, 44);
  EXPECT_EQ(requests[1].at, absl::Milliseconds(4250));
  EXPECT_EQ(requests[1].prompt_tokens, 2000) << "clipped";
  EXPECT_EQ(requests[2].at, requests[1].at);
}

TEST(TraceTest, IsSpedUpAndCut) {
  ASSERT_OK_AND_ASSIGN(const auto requests,
                       ParseTrace(kTrace, "t", {.most_requests = 2, .speed = 10}));
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].at, absl::Milliseconds(425));
}

TEST(TraceTest, NamesTheLineThatIsWrong) {
  const auto error = [](const std::string& line) {
    return ParseTrace("TIMESTAMP,ContextTokens,GeneratedTokens\n" + line, "t.csv", {}).status();
  };
  for (const char* line : {"2023-11-16 18:15:46,1", "yesterday,1,1", "2023-11-16 18:15:46,x,1",
                           "2023-11-16 18:15:46,0,1", "2023-11-16 18:15:46,1,-1",
                           "2023-11-16 18:15:46,99999999999,1"}) {
    EXPECT_THAT(error(line), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("t.csv:2")));
  }
  EXPECT_THAT(error("2023-11-16 18:15:46,1,1\n2023-11-16 18:15:45,1,1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("t.csv:3")));
  EXPECT_THAT(error(""), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no requests")));
  EXPECT_THAT(ReadTrace("/nowhere/t.csv", {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/t.csv")));
}

TEST(TraceTest, PercentilesAreOfTheValuesThemselves) {
  std::vector<double> values;
  EXPECT_EQ(Percentile(&values, 0.5), 0);
  for (int i = 100; i > 0; --i) values.push_back(i);
  EXPECT_EQ(Percentile(&values, 0.5), 50);
  EXPECT_EQ(Percentile(&values, 0.99), 99);
  EXPECT_EQ(Percentile(&values, 1), 100);
  EXPECT_EQ(Percentile(&values, 0), 1);
}

}  // namespace
}  // namespace dovetail::tools
