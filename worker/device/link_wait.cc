#include "worker/device/link_wait.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/patience.h"
#include "base/status_macros.h"
#include "transport/tensor_channel.h"

namespace dovetail::worker {
namespace {

constexpr absl::Duration kShortestPause = absl::Microseconds(10);
constexpr absl::Duration kLongestPause = absl::Microseconds(200);

}  // namespace

absl::Status WaitFor(const LinkEdge& edge, absl::string_view what, absl::Duration timeout,
                     absl::FunctionRef<absl::StatusOr<bool>()> done) {
  Patience patience(timeout);
  const absl::Time begun = absl::Now();
  absl::Duration pause = kShortestPause;
  for (;;) {
    if (edge.aborted()) {
      return absl::AbortedError(absl::StrCat(edge.name, ": the epoch ended"));
    }
    DT_ASSIGN_OR_RETURN(const bool is_done, done());
    if (is_done) return absl::OkStatus();
    const absl::Time now = absl::Now();
    if (patience.Exhausted(now)) {
      return absl::DeadlineExceededError(absl::StrCat(edge.name, ": ", what, " in time"));
    }
    if (now - begun < transport::kDefaultSpin) continue;
    absl::SleepFor(std::min(pause, patience.UntilNextLook()));
    pause = std::min(2 * pause, kLongestPause);
  }
}

}  // namespace dovetail::worker
