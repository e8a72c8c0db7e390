#include "base/patience.h"

#include <gtest/gtest.h>

namespace dovetail {
namespace {

class PatienceTest : public ::testing::Test {
 protected:
  // Looks when it is due until it is over; returns how long that took.
  absl::Duration Exhaust(Patience* patience) {
    const absl::Time start = now_;
    while (!patience->Exhausted(now_)) now_ += patience->UntilNextLook();
    return now_ - start;
  }
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(PatienceTest, IsOverAfterItsLimitForOneWhoLooks) {
  for (const absl::Duration limit :
       {absl::ZeroDuration(), absl::Nanoseconds(3), absl::Milliseconds(40), absl::Seconds(1.5),
        absl::Seconds(30)}) {
    Patience patience(limit);
    EXPECT_EQ(Exhaust(&patience), limit);
    EXPECT_TRUE(patience.Exhausted(now_));
    EXPECT_EQ(patience.UntilNextLook(), absl::ZeroDuration());
  }
}

TEST_F(PatienceTest, CountsFromTheFirstLook) {
  Patience patience(absl::Seconds(1));
  now_ += absl::Hours(1);
  EXPECT_EQ(patience.Waited(now_), absl::ZeroDuration());
  EXPECT_EQ(Exhaust(&patience), absl::Seconds(1));
}

TEST_F(PatienceTest, APauseCountsAsOnePeriod) {
  Patience patience(absl::Seconds(2));
  EXPECT_FALSE(patience.Exhausted(now_));
  now_ += absl::Hours(8);
  EXPECT_EQ(patience.Waited(now_), absl::Milliseconds(250));
  EXPECT_EQ(Exhaust(&patience), absl::Milliseconds(1750)) << "who is silent after it is found";
}

TEST_F(PatienceTest, LeavesTimeAfterAPauseHoweverShortItIs) {
  // The other end speaks three times in the limit, and spoke for the last time just before.
  const absl::Duration limit = absl::Milliseconds(300);
  Patience patience(limit);
  const absl::Time last_words = now_;
  while (now_ < last_words + limit / 3) {
    EXPECT_FALSE(patience.Exhausted(now_));
    now_ += absl::Milliseconds(1);
  }
  now_ += absl::Minutes(1);
  EXPECT_FALSE(patience.Exhausted(now_));
  EXPECT_GE(Exhaust(&patience), limit / 3);
}

TEST_F(PatienceTest, ASignOfLifeRenewsIt) {
  Patience patience(absl::Seconds(1));
  Exhaust(&patience);
  patience.Renew();
  EXPECT_FALSE(patience.Exhausted(now_));
  EXPECT_EQ(Exhaust(&patience), absl::Seconds(1));
}

TEST_F(PatienceTest, AClockThatIsSetBackStands) {
  Patience patience(absl::Seconds(1));
  EXPECT_FALSE(patience.Exhausted(now_));
  now_ -= absl::Hours(1);
  EXPECT_EQ(patience.Waited(now_), absl::ZeroDuration());
  EXPECT_EQ(Exhaust(&patience), absl::Seconds(1));
}

TEST_F(PatienceTest, AnInfiniteOneNeedsNoLooks) {
  Patience patience(absl::InfiniteDuration());
  EXPECT_EQ(patience.UntilNextLook(), absl::InfiniteDuration());
  EXPECT_FALSE(patience.Exhausted(now_));
  now_ += absl::Hours(8);
  EXPECT_FALSE(patience.Exhausted(now_));
  EXPECT_EQ(patience.UntilNextLook(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace dovetail
