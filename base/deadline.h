// Deadline: a point on the monotonic clock, made from a timeout. A value; thread-safe.
#ifndef DOVETAIL_BASE_DEADLINE_H_
#define DOVETAIL_BASE_DEADLINE_H_

#include <chrono>

#include "absl/time/time.h"

namespace dovetail {

class Deadline {
 public:
  // Infinite, or longer than a century: never passes.
  explicit Deadline(absl::Duration timeout)
      : infinite_(timeout > absl::Hours(24 * 365 * 100)),
        at_(infinite_ ? Clock::time_point() : Clock::now() + absl::ToChronoNanoseconds(timeout)) {}

  // What is left: never negative, infinite if it never passes.
  absl::Duration Remaining() const {
    if (infinite_) return absl::InfiniteDuration();
    const absl::Duration left = absl::FromChrono(at_ - Clock::now());
    return left > absl::ZeroDuration() ? left : absl::ZeroDuration();
  }
  bool Passed() const { return !infinite_ && Clock::now() >= at_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool infinite_;
  Clock::time_point at_;
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_DEADLINE_H_
