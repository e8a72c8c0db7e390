#include "coordinator/logit_adjustments.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<LogitAdjustment> After(LogitAdjustments& adjustments,
                                   const std::vector<int32_t>& tokens) {
  std::vector<LogitAdjustment> out = {{.token = 999}};
  const int appended = adjustments.Append(tokens, &out);
  EXPECT_EQ(appended, static_cast<int>(out.size()) - 1);
  EXPECT_EQ(out.front().token, 999) << "what was there stays";
  out.erase(out.begin());
  return out;
}

TEST(LogitAdjustments, NothingIsAskedByDefault) { EXPECT_FALSE(AdjustmentOptions().any()); }

TEST(LogitAdjustments, PenaltiesOfTheAnswerCountItsTokens) {
  LogitAdjustments adjustments({.presence_penalty = 0.5f, .frequency_penalty = 0.25f}, 2, 10);
  EXPECT_THAT(After(adjustments, {7, 8}), IsEmpty()) << "the prompt does not count";
  EXPECT_THAT(After(adjustments, {7, 8, 9}), ElementsAre(LogitAdjustment{9, -0.75f, 1}));
  EXPECT_THAT(After(adjustments, {7, 8, 9, 7, 9}),
              ElementsAre(LogitAdjustment{7, -0.75f, 1}, LogitAdjustment{9, -1.0f, 1}));
  EXPECT_THAT(After(adjustments, {7, 8, 9, 7, 9}),
              ElementsAre(LogitAdjustment{7, -0.75f, 1}, LogitAdjustment{9, -1.0f, 1}))
      << "a step that is repeated is the same";
}

TEST(LogitAdjustments, RepetitionCountsThePromptToo) {
  LogitAdjustments adjustments({.repetition_penalty = 1.5f}, 2, 10);
  EXPECT_THAT(After(adjustments, {8, 7, 7}),
              ElementsAre(LogitAdjustment{7, 0, 1.5f}, LogitAdjustment{8, 0, 1.5f}));
}

TEST(LogitAdjustments, BiasesAddToPenalties) {
  LogitAdjustments adjustments({.logit_bias = {{9, 2}, {3, -100}, {9, 1}}, .presence_penalty = 1},
                               1, 10);
  EXPECT_THAT(After(adjustments, {1}),
              ElementsAre(LogitAdjustment{3, -100, 1}, LogitAdjustment{9, 3, 1}));
  EXPECT_THAT(After(adjustments, {1, 9}),
              ElementsAre(LogitAdjustment{3, -100, 1}, LogitAdjustment{9, 2, 1}));
}

TEST(LogitAdjustments, EndTokensAreExcludedUntilMinTokens) {
  LogitAdjustments adjustments({.min_tokens = 2, .end_tokens = {4, 5}}, 1, 10);
  const LogitAdjustment four = {4, -INFINITY, 1};
  const LogitAdjustment five = {5, -INFINITY, 1};
  EXPECT_THAT(After(adjustments, {1}), ElementsAre(four, five));
  EXPECT_THAT(After(adjustments, {1, 1}), ElementsAre(four, five));
  EXPECT_THAT(After(adjustments, {1, 1, 1}), IsEmpty());
}

}  // namespace
}  // namespace dovetail::coordinator
