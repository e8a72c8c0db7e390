// Patience: how long somebody else may be silent, in time in which we were there to hear them.
//
// A process that was stopped (SIGSTOP, a frozen container, a machine that slept) finds that much
// time has passed in which nobody spoke; but mostly those it waits for stood still as well. So
// silence is added up between looks, of which there has to be one every period(), and of a longer
// gap only one period counts. Who looks late for another reason, as on a busy machine, judges
// later, never earlier.
//
// Counting begins with the first look. The owner passes the time in, by whatever clock; a clock
// that is set back counts as one that stands. A value of one thread.
#ifndef DOVETAIL_BASE_PATIENCE_H_
#define DOVETAIL_BASE_PATIENCE_H_

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace dovetail {

class Patience {
 public:
  // May be infinite.
  explicit Patience(absl::Duration limit) : limit_(limit) {}

  // A look: what was waited so far.
  absl::Duration Waited(absl::Time now = absl::Now()) {
    if (last_look_ != absl::InfiniteFuture()) {
      waited_ += std::clamp(now - last_look_, absl::ZeroDuration(), period());
    }
    last_look_ = now;
    return waited_;
  }
  // A look: is it over?
  bool Exhausted(absl::Time now = absl::Now()) { return Waited(now) >= limit_; }
  // A sign of life: counting begins anew with the next look.
  void Renew() { *this = Patience(limit_); }

  // How long the owner may sleep before it looks again; infinite if the limit is.
  absl::Duration UntilNextLook() const {
    if (limit_ == absl::InfiniteDuration()) return limit_;
    return std::clamp(limit_ - waited_, absl::ZeroDuration(), period());
  }
  absl::Duration limit() const { return limit_; }
  // A quarter of the limit, so that most of it is left when a pause of everyone is over.
  absl::Duration period() const { return std::min(kLongestPeriod, limit_ / 4); }

 private:
  static constexpr absl::Duration kLongestPeriod = absl::Milliseconds(250);

  absl::Duration limit_;
  absl::Duration waited_;
  absl::Time last_look_ = absl::InfiniteFuture();  // none yet
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_PATIENCE_H_
