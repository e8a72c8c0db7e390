// RetryEstimator: when a client that found the queue full should come again, from how long recent
// requests took and how many are waiting. I/O thread only.
#ifndef DOVETAIL_COORDINATOR_HTTP_RETRY_ESTIMATOR_H_
#define DOVETAIL_COORDINATOR_HTTP_RETRY_ESTIMATOR_H_

#include <algorithm>
#include <cmath>

#include "coordinator/engine.h"

namespace dovetail::coordinator {

class RetryEstimator {
 public:
  static constexpr int kMaxSeconds = 60;  // clients give up on more than 120

  void AddFinished(double seconds) {
    mean_seconds_ = mean_seconds_ == 0 ? seconds : 0.8 * mean_seconds_ + 0.2 * seconds;
  }

  // The scheduler's own prediction once it has one; until then, the waiting requests leave the
  // queue at the rate at which running ones end.
  int Seconds(const EngineStats& stats) const {
    const double seconds = stats.predicted_wait_seconds > 0
                               ? stats.predicted_wait_seconds
                               : mean_seconds_ * stats.waiting / std::max(1, stats.running);
    return static_cast<int>(std::clamp(std::ceil(seconds), 1.0, double{kMaxSeconds}));
  }

 private:
  double mean_seconds_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_RETRY_ESTIMATOR_H_
