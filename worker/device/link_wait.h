// What waits of links between GPUs have in common: which edge, when to give up, how to look.
//
// A wait looks for kDefaultSpin without sleeping, then ever less often, down to every 200 us.
#ifndef DOVETAIL_WORKER_DEVICE_LINK_WAIT_H_
#define DOVETAIL_WORKER_DEVICE_LINK_WAIT_H_

#include <functional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace dovetail::worker {

struct LinkEdge {
  std::string name;  // "cuda:0 -> cuda:1"
  // Whether the epoch has ended, from when on nothing is waited for. Called at every look, by the
  // link's thread.
  std::function<bool()> aborted;
};

// Calls `done` until it returns true or a failure. kAborted: the epoch has ended.
// kDeadlineExceeded: "<edge>: <what> in time" ("the receiver did not take the rows").
absl::Status WaitFor(const LinkEdge& edge, absl::string_view what, absl::Duration timeout,
                     absl::FunctionRef<absl::StatusOr<bool>()> done);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_LINK_WAIT_H_
