#include "coordinator/steps_in_flight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace dovetail::coordinator {
namespace {

constexpr absl::Duration kAllowed = absl::Seconds(2);

class StepsInFlightTest : public ::testing::Test {
 protected:
  StepsInFlightTest() { steps_.Begin(3); }
  void Send(int lane, absl::Duration allowed = kAllowed) {
    steps_.NoteSent(lane, ++number_, allowed, now_);
  }
  // Looks when it is due; whether something is overdue in the end.
  bool OverdueAfter(absl::Duration duration) {
    const absl::Time end = now_ + duration;
    while (steps_.FindOverdue(now_) == nullptr && now_ < end) {
      now_ = std::min(end, now_ + steps_.UntilNextLook());
    }
    return steps_.FindOverdue(now_) != nullptr;
  }

  StepsInFlight steps_{3};
  uint64_t number_ = 0;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(StepsInFlightTest, ComeBackInTheOrderInWhichTheyWereSent) {
  Send(2);
  Send(0);
  EXPECT_EQ(steps_.count(), 2);
  EXPECT_FALSE(steps_.IsNext(0, 2));
  EXPECT_TRUE(steps_.IsNext(2, 1));
  EXPECT_FALSE(steps_.IsNext(2, 2)) << "of another lane";
  EXPECT_FALSE(steps_.IsNext(1, 0)) << "nothing is in flight there";
  EXPECT_FALSE(steps_.IsNext(3, 1)) << "no such lane";
  steps_.NoteBack(2);
  EXPECT_FALSE(steps_.IsNext(2, 1)) << "it is back already";
  EXPECT_TRUE(steps_.IsNext(0, 2));
}

TEST_F(StepsInFlightTest, KnowsWhichWereAlone) {
  Send(0);
  EXPECT_TRUE(steps_.of(0).alone);
  Send(1);
  EXPECT_FALSE(steps_.of(0).alone);
  EXPECT_FALSE(steps_.of(1).alone);
  steps_.NoteBack(0);
  EXPECT_FALSE(steps_.of(1).alone) << "it was not, once";
}

TEST_F(StepsInFlightTest, LanesTakeTurnsWhereNotAllMayHaveOne) {
  std::vector<int> turns;
  steps_.Begin(1);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(steps_.MaySend());
    const int lane = steps_.first_lane();
    turns.push_back(lane);
    Send(lane);
    EXPECT_FALSE(steps_.MaySend());
    steps_.NoteBack(lane);
  }
  EXPECT_EQ(turns, (std::vector<int>{0, 1, 2, 0, 1}));
  steps_.Begin(3);
  Send(0);
  EXPECT_EQ(steps_.first_lane(), 0) << "all may";
}

TEST_F(StepsInFlightTest, AnOverdueStepIsFound) {
  EXPECT_EQ(steps_.UntilNextLook(), absl::InfiniteDuration());
  Send(1, 2 * kAllowed);
  Send(0);
  EXPECT_FALSE(OverdueAfter(kAllowed - absl::Milliseconds(1)));
  ASSERT_TRUE(OverdueAfter(absl::Milliseconds(1)));
  EXPECT_EQ(steps_.FindOverdue(now_)->number, 2u);
  steps_.NoteBack(0);
  EXPECT_FALSE(OverdueAfter(kAllowed - absl::Milliseconds(1)));
  EXPECT_TRUE(OverdueAfter(absl::Milliseconds(1)));
  steps_.Clear();
  EXPECT_FALSE(OverdueAfter(absl::Seconds(10)));
}

TEST_F(StepsInFlightTest, APauseOfThisProcessIsNotTheirs) {
  Send(0);
  EXPECT_EQ(steps_.FindOverdue(now_), nullptr);
  now_ += absl::Hours(8);
  EXPECT_FALSE(OverdueAfter(kAllowed * 3 / 4));
  EXPECT_TRUE(OverdueAfter(kAllowed / 4));
}

}  // namespace
}  // namespace dovetail::coordinator
