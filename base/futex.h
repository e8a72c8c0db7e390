// Futex waits on 32-bit words that may lie in memory shared between processes.
//
// The shared kind is used throughout: the same word may be mapped at different addresses. Callers
// loop: a wait may return early for no reason. Thread-safe.
#ifndef DOVETAIL_BASE_FUTEX_H_
#define DOVETAIL_BASE_FUTEX_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace dovetail {

// Sleeps while `*word == expected`, at most for `timeout` (infinite is allowed).
void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, absl::Duration timeout);

// Wakes every thread of every process that sleeps on `word`.
void FutexWakeAll(const std::atomic<uint32_t>& word);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_FUTEX_H_
