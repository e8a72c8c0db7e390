#include "base/thread_pool.h"

#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "gtest/gtest.h"

namespace dovetail {
namespace {

TEST(SliceTest, CoversEverythingOnceAndEvenly) {
  for (int64_t total : {0, 1, 7, 64, 1000}) {
    for (int n : {1, 2, 3, 16}) {
      int64_t at = 0;
      for (int i = 0; i < n; ++i) {
        const Range r = Slice(total, i, n);
        EXPECT_EQ(r.begin, at);
        EXPECT_LE(r.end - r.begin, total / n + 1);
        EXPECT_GE(r.end - r.begin, total / n);
        at = r.end;
      }
      EXPECT_EQ(at, total);
    }
  }
}

TEST(ThreadPoolTest, EveryThreadRunsOncePerPhase) {
  for (int n : {1, 2, 3, 8, 64}) {  // more threads than processors as well
    ThreadPool pool(n, {});
    EXPECT_EQ(pool.num_threads(), n);
    std::vector<int> calls(n, 0);
    const int phases = n > 8 ? 200 : 2000;
    for (int phase = 0; phase < phases; ++phase) {
      pool.Run([&](int idx, int count) {
        EXPECT_EQ(count, n);
        EXPECT_EQ(ThreadPool::ThisThread(), idx);
        ++calls[idx];  // no two threads share an index: TSan would say so
      });
    }
    for (int c : calls) EXPECT_EQ(c, phases);
  }
}

// Plain memory written in one phase is read by other threads in the next.
TEST(ThreadPoolTest, PhasesAreBarriers) {
  const int n = 4;
  ThreadPool pool(n, {});
  std::vector<int64_t> now(n, 1), next(n, 0);
  for (int phase = 0; phase < 500; ++phase) {
    pool.Run(
        [&](int idx, int count) { next[idx] = (now[idx] + now[(idx + 1) % count]) % 1000003; });
    std::swap(now, next);
    if (phase % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // all asleep
  }
  int64_t expected = 1;
  for (int phase = 0; phase < 500; ++phase) expected = expected * 2 % 1000003;
  for (int64_t v : now) EXPECT_EQ(v, expected);
}

TEST(ThreadPoolTest, CallerIsThreadZero) {
  ThreadPool pool(2, {});
  std::thread::id zero;
  pool.Run([&](int idx, int) {
    if (idx == 0) zero = std::this_thread::get_id();
  });
  EXPECT_EQ(zero, std::this_thread::get_id());
}

TEST(ThreadPoolTest, ThreadsArePinned) {
  cpu_set_t set;
  CPU_ZERO(&set);
  ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  std::vector<int> cpus;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) cpus.push_back(i);
  }
  std::thread([&] {  // a thread of its own: pinning changes the caller
    ThreadPool pool(3, cpus);
    std::vector<int> ran_on(3, -1);
    pool.Run([&](int idx, int) { ran_on[idx] = sched_getcpu(); });
    for (size_t i = 0; i < ran_on.size(); ++i) EXPECT_EQ(ran_on[i], cpus[i % cpus.size()]);
  })
      .join();
}

TEST(ThreadPoolTest, PinningToAnAbsentProcessorStillRuns) {
  std::thread([] {
    const std::vector<int> cpus = {CPU_SETSIZE - 1};
    ThreadPool pool(2, cpus);
    std::atomic<int> calls{0};
    pool.Run([&](int, int) { ++calls; });
    EXPECT_EQ(calls, 2);
  }).join();
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(ThreadPoolTest, IdlePoolUsesNoCpu) {
  ThreadPool pool(4, {});
  pool.Run([](int, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = CpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(CpuSeconds() - before, 0.03);
}

// The caller may be the one that waits long: it sleeps then.
TEST(ThreadPoolTest, WaitsForASlowHelper) {
  ThreadPool pool(2, {});
  bool done = false;
  pool.Run([&](int idx, int) {
    if (idx == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      done = true;
    }
  });
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace dovetail
