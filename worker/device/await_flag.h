// AwaitFlag: waits for a number that a GPU writes into the host's memory when its work is done.
//
// Looks at it without a call of the driver for `spin`, since a thread that sleeps is woken late.
#ifndef DOVETAIL_WORKER_DEVICE_AWAIT_FLAG_H_
#define DOVETAIL_WORKER_DEVICE_AWAIT_FLAG_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace dovetail::worker {

// Returns when `flag`, which only grows, is at least `wanted`; all that was written before it is
// seen then. After `spin` it calls `wait_for_stream`, which returns when the GPU has nothing left
// to do that is to write the flag, and whose failure is the result: a GPU that failed writes none.
// kInternal: it has nothing left to do, and the flag is not there.
absl::Status AwaitFlag(uint64_t* flag, uint64_t wanted, absl::Duration spin,
                       absl::FunctionRef<absl::Status()> wait_for_stream);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_AWAIT_FLAG_H_
