#include "base/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace dovetail {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
static_assert(std::atomic<uint32_t>::is_always_lock_free);

void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, absl::Duration timeout) {
  if (timeout <= absl::ZeroDuration()) return;
  timespec relative;
  const timespec* limit = nullptr;
  if (timeout != absl::InfiniteDuration()) {
    relative = absl::ToTimespec(timeout);
    limit = &relative;
  }
  // EAGAIN, EINTR and ETIMEDOUT all mean the same to the caller: look again.
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, limit, nullptr, 0);
}

void FutexWakeAll(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace dovetail
