#include "transport/shm_doorbell.h"

#include <sys/resource.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace dovetail::transport {
namespace {

constexpr absl::Duration kLong = absl::Seconds(60);

TEST(ShmDoorbell, ReturnsAtOnceWhenItWasRung) {
  DoorbellState state;
  ShmDoorbell bell(&state);
  const uint32_t seen = bell.Sequence();
  bell.Ring();
  const absl::Time begin = absl::Now();
  bell.Wait(seen, absl::ZeroDuration(), kLong);
  EXPECT_LT(absl::Now() - begin, kLong / 2);
  EXPECT_NE(bell.Sequence(), seen);
}

TEST(ShmDoorbell, ReturnsAfterItsTimeout) {
  DoorbellState state;
  ShmDoorbell bell(&state);
  const absl::Time begin = absl::Now();
  bell.Wait(bell.Sequence(), kDefaultSpin, absl::Milliseconds(30));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(29));
  EXPECT_EQ(state.waiters.load(), 0u);
  bell.Wait(bell.Sequence(), kDefaultSpin, absl::ZeroDuration());
  bell.Wait(bell.Sequence(), kDefaultSpin, -absl::Seconds(1));
}

TEST(ShmDoorbell, SleepingUsesNoCpu) {
  DoorbellState state;
  ShmDoorbell bell(&state);
  const absl::Duration waited = absl::Milliseconds(300);
  rusage before, after;
  getrusage(RUSAGE_THREAD, &before);
  bell.Wait(bell.Sequence(), kDefaultSpin, waited);
  getrusage(RUSAGE_THREAD, &after);
  auto cpu = [](const rusage& usage) {
    return absl::DurationFromTimeval(usage.ru_utime) + absl::DurationFromTimeval(usage.ru_stime);
  };
  EXPECT_LT(cpu(after) - cpu(before), 0.05 * waited);
}

TEST(ShmDoorbell, WakesEveryWaiter) {
  DoorbellState state;
  ShmDoorbell bell(&state);
  const uint32_t seen = bell.Sequence();
  const absl::Time begin = absl::Now();
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] { bell.Wait(seen, absl::ZeroDuration(), kLong); });
  }
  absl::SleepFor(absl::Milliseconds(20));
  bell.Ring();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_LT(absl::Now() - begin, kLong / 2);
  EXPECT_EQ(state.waiters.load(), 0u);
}

// Two threads hand a number back and forth without ever spinning: a single lost ring stops them
// until the timeout, which is far longer than all the rest.
TEST(ShmDoorbell, LosesNoRing) {
  constexpr uint32_t kRounds = 5000;
  DoorbellState states[2];
  std::atomic<uint32_t> turn{0};
  auto play = [&](uint32_t me) {
    ShmDoorbell mine(&states[me]);
    ShmDoorbell theirs(&states[1 - me]);
    for (;;) {
      const uint32_t seen = mine.Sequence();
      const uint32_t now = turn.load();
      if (now >= kRounds) break;
      if (now % 2 == me) {
        turn.store(now + 1);
        theirs.Ring();
      } else {
        mine.Wait(seen, absl::ZeroDuration(), kLong);
      }
    }
    theirs.Ring();
  };
  const absl::Time begin = absl::Now();
  std::thread other(play, 1);
  play(0);
  other.join();
  EXPECT_EQ(turn.load(), kRounds);
  EXPECT_LT(absl::Now() - begin, kLong / 2);
}

}  // namespace
}  // namespace dovetail::transport
