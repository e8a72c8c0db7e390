#include "coordinator/stop_matcher.h"

#include <algorithm>
#include <random>

#include "gtest/gtest.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

struct Result {
  std::string text;
  bool stopped = false;
  bool operator==(const Result&) const = default;
};

Result RunPieces(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Result result;
  for (const std::string& piece : pieces) result.text += matcher.Push(piece);
  result.text += matcher.Finish();
  result.stopped = matcher.stopped();
  return result;
}

TEST(StopMatcherTest, WithoutStopsTextPassesAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Finish(), "");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("the E"), "the ");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("G"), "ENG");
  EXPECT_EQ(matcher.Push("lishEN"), "lish");
  EXPECT_EQ(matcher.Finish(), "EN");
  EXPECT_EQ(matcher.stop(), "");
}

TEST(StopMatcherTest, TellsWhichStopItWas) {
  StopMatcher matcher({"one", "two", "wo"});
  EXPECT_EQ(matcher.Push("a tw"), "a ");
  EXPECT_EQ(matcher.Push("o b"), "");
  EXPECT_EQ(matcher.stop(), "two");
}

TEST(StopMatcherTest, StopsBeforeTheStopString) {
  EXPECT_EQ(RunPieces({"\n\n"}, {"one\n", "\ntwo"}), (Result{"one", true}));
  EXPECT_EQ(RunPieces({"\n\n"}, {"\n\n"}), (Result{"", true}));
}

TEST(StopMatcherTest, TheStopThatIsCompleteFirstWins) {
  EXPECT_EQ(RunPieces({"abcd", "bc"}, {"xabcd"}), (Result{"xa", true}));
  // Both end at the same byte: the longer.
  EXPECT_EQ(RunPieces({"bc", "abc"}, {"xabc"}), (Result{"x", true}));
}

TEST(StopMatcherTest, FallsBackInsideARepeatedBeginning) {
  EXPECT_EQ(RunPieces({"aab"}, {"a", "a", "a", "b", "c"}), (Result{"a", true}));
  EXPECT_EQ(RunPieces({"abab", "x"}, {"ab", "ac"}), (Result{"abac", false}));
}

TEST(StopMatcherTest, SplitsNoCharacterThatTheStopDoesNot) {
  StopMatcher matcher({"é!"});
  EXPECT_EQ(matcher.Push("caf\xc3"), "caf");  // first byte of the stop's first character
  EXPECT_EQ(matcher.Push("\xa9"), "");
  EXPECT_EQ(matcher.Push("?"), "é?");
}

// Against a search in the whole text, for all ways to cut it.
TEST(StopMatcherTest, EqualsASearchInTheWholeTextHoweverItIsCut) {
  std::mt19937_64 random(testing::TestSeed());
  const auto word = [&](int most) {
    std::string text(1 + random() % most, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(word(4));
    const std::string text = word(14);
    Result expected{text, false};
    size_t best_end = std::string::npos;
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      const size_t end = at + stop.size();
      if (end < best_end || (end == best_end && at < expected.text.size())) {
        best_end = end;
        expected = {text.substr(0, at), true};
      }
    }
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t count = 1 + random() % 4;
      pieces.push_back(text.substr(at, count));
      at += count;
    }
    ASSERT_EQ(RunPieces(stops, pieces), expected) << text << " / " << stops[0];
  }
}

}  // namespace
}  // namespace dovetail::coordinator
