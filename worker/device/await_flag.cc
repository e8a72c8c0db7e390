#include "worker/device/await_flag.h"

#include <atomic>

#include "absl/strings/str_cat.h"
#include "base/cpu_pause.h"
#include "base/deadline.h"
#include "base/status_macros.h"

namespace dovetail::worker {

absl::Status AwaitFlag(uint64_t* flag, uint64_t wanted, absl::Duration spin,
                       absl::FunctionRef<absl::Status()> wait_for_stream) {
  constexpr int kLooksPerClockRead = 16;
  const std::atomic_ref<uint64_t> raised(*flag);
  const Deadline end(spin);
  do {
    for (int i = 0; i < kLooksPerClockRead; ++i) {
      if (raised.load(std::memory_order_acquire) >= wanted) return absl::OkStatus();
      CpuPause();
    }
  } while (!end.Passed());
  DT_RETURN_IF_ERROR(wait_for_stream());
  const uint64_t found = raised.load(std::memory_order_acquire);
  if (found >= wanted) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the GPU is idle and has signalled ", found, " times, expected ", wanted));
}

}  // namespace dovetail::worker
