// ThreadPool: a fixed set of pinned threads that run phases together.
//
// Run(fn) calls fn(thread_idx, num_threads) once on every thread, the caller being thread 0, and
// returns when all are done: a barrier on both sides. Share(total, grain, fn) is a phase whose
// threads call fn(begin, end) on pieces of [0, total), each first on its own part (WorkShare).
// Between phases the helpers spin for a short while, then sleep on a futex: an idle pool uses no
// CPU. A phase takes no lock and allocates nothing.
//
// Owned and called by one thread. The callable is borrowed for the duration of Run.
#ifndef DOVETAIL_BASE_THREAD_POOL_H_
#define DOVETAIL_BASE_THREAD_POOL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "base/range.h"
#include "base/work_share.h"

namespace dovetail {

// The part of [0, total) that belongs to thread `idx` of `n`: contiguous, sizes differ by one unit.
inline Range Slice(int64_t total, int idx, int n) {
  return {total * idx / n, total * (idx + 1) / n};
}

class ThreadPool {
 public:
  // Starts num_threads - 1 helpers. `cpus`: the processors to pin to, thread i on cpus[i % size];
  // empty leaves placement to the kernel (the caller's own affinity is not changed then).
  ThreadPool(int num_threads, absl::Span<const int> cpus);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;
  // So many were run: the barriers that a step took.
  int64_t num_phases() const { return num_phases_; }
  // Inside a phase: the number of the thread that calls it, 0 to num_threads - 1.
  static int ThisThread();

  template <typename Fn>
  void Run(const Fn& fn) {
    RunErased([](const void* f, int idx, int n) { (*static_cast<const Fn*>(f))(idx, n); }, &fn);
  }

  template <typename Fn>
  void Share(int64_t total, int64_t grain, const Fn& fn) {
    WorkShare work(total, grain, num_threads());
    Run([&](int idx, int) {
      Range piece;
      while (work.Take(idx, &piece)) fn(piece.begin, piece.end);
    });
  }

 private:
  using Erased = void (*)(const void* fn, int idx, int n);
  void RunErased(Erased call, const void* fn);
  struct Shared;
  std::unique_ptr<Shared> shared_;
  int64_t num_phases_ = 0;
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_THREAD_POOL_H_
