#include "base/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "base/check.h"

namespace dovetail {
namespace {

constexpr std::chrono::microseconds kSpin{60};

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Which helper this thread is. All others are a pool's caller.
thread_local int this_thread = 0;

// Results must not depend on who set flush-to-zero in this process before us.
void ResetFloatingPointMode() {
#if defined(__x86_64__)
  __builtin_ia32_ldmxcsr(0x1f80);
#endif
}

uint32_t* Word(std::atomic<uint32_t>* a) {
  static_assert(sizeof(*a) == sizeof(uint32_t));
  return reinterpret_cast<uint32_t*>(a);
}

void FutexWait(std::atomic<uint32_t>* a, uint32_t expected) {
  syscall(SYS_futex, Word(a), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>* a, int count) {
  syscall(SYS_futex, Word(a), FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

// Waits until *a != old: spins for a while where a processor is to spare, then sleeps. `sleepers`
// tells the one who changes *a that a wake-up is needed: it is raised before the kernel compares
// the word.
void WaitWhileEqual(std::atomic<uint32_t>* a, uint32_t old, std::atomic<uint32_t>* sleepers,
                    bool may_spin) {
  if (may_spin) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; ++i) {
        if (a->load(std::memory_order_acquire) != old) return;
        Pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  while (a->load(std::memory_order_acquire) == old) {
    sleepers->fetch_add(1, std::memory_order_seq_cst);
    if (a->load(std::memory_order_seq_cst) == old) FutexWait(a, old);
    sleepers->fetch_sub(1, std::memory_order_seq_cst);
  }
}

void PinTo(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // A processor that this process may not use leaves the thread where the kernel puts it.
  pthread_setaffinity_np(thread, sizeof(set), &set);
}

int NumUsableCpus(absl::Span<const int> cpus) {
  if (!cpus.empty()) {
    std::vector<int> distinct(cpus.begin(), cpus.end());
    std::sort(distinct.begin(), distinct.end());
    return static_cast<int>(std::unique(distinct.begin(), distinct.end()) - distinct.begin());
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

}  // namespace

struct ThreadPool::Shared {
  // The published line: what to run and the number of the phase.
  alignas(64) std::atomic<uint32_t> epoch{0};
  Erased call = nullptr;
  const void* fn = nullptr;
  bool stop = false;

  alignas(64) std::atomic<uint32_t> sleepers{0};         // helpers asleep on epoch
  alignas(64) std::atomic<uint32_t> caller_sleeping{0};  // the caller asleep on some Helper::done

  struct alignas(64) Helper {
    std::atomic<uint32_t> done{0};  // last finished phase
    std::thread thread;
  };
  std::vector<Helper> helpers;
  int num_threads = 1;
  bool may_spin = true;

  explicit Shared(int n) : helpers(n - 1), num_threads(n) {}

  void HelperLoop(int idx) {
    this_thread = idx;
    ResetFloatingPointMode();
    Helper& self = helpers[idx - 1];
    uint32_t seen = 0;
    while (true) {
      WaitWhileEqual(&epoch, seen, &sleepers, may_spin);
      ++seen;
      if (stop) return;
      call(fn, idx, num_threads);
      self.done.store(seen, std::memory_order_seq_cst);
      if (caller_sleeping.load(std::memory_order_seq_cst) != 0) FutexWake(&self.done, 1);
    }
  }

  void Publish() {
    epoch.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) != 0) FutexWake(&epoch, num_threads);
  }
};

ThreadPool::ThreadPool(int num_threads, absl::Span<const int> cpus) {
  DT_CHECK_GE(num_threads, 1);
  shared_ = std::make_unique<Shared>(num_threads);
  shared_->may_spin = num_threads <= NumUsableCpus(cpus);
  ResetFloatingPointMode();
  const auto cpu_of = [&](int i) { return cpus[static_cast<size_t>(i) % cpus.size()]; };
  if (!cpus.empty()) PinTo(pthread_self(), cpu_of(0));
  for (int i = 1; i < num_threads; ++i) {
    std::thread& thread = shared_->helpers[i - 1].thread;
    thread = std::thread([shared = shared_.get(), i] { shared->HelperLoop(i); });
    if (!cpus.empty()) PinTo(thread.native_handle(), cpu_of(i));
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop = true;
  shared_->Publish();
  for (Shared::Helper& helper : shared_->helpers) helper.thread.join();
}

int ThreadPool::num_threads() const { return shared_->num_threads; }

int ThreadPool::ThisThread() { return this_thread; }

void ThreadPool::RunErased(Erased call, const void* fn) {
  Shared& s = *shared_;
  ++num_phases_;
  if (s.num_threads == 1) {
    call(fn, 0, 1);
    return;
  }
  s.call = call;
  s.fn = fn;
  const uint32_t before = s.epoch.load(std::memory_order_relaxed);
  s.Publish();
  call(fn, 0, s.num_threads);
  for (Shared::Helper& helper : s.helpers) {
    WaitWhileEqual(&helper.done, before, &s.caller_sleeping, s.may_spin);
  }
}

}  // namespace dovetail
