// TwoProcesses: a test whose two sides run in processes of their own, which it may kill.
//
// A side is a function that returns a status, which the test then looks at. The sides and the test
// share memory, by which they tell each other how far they have come.
#ifndef DOVETAIL_TESTS_INTEGRATION_TWO_PROCESSES_H_
#define DOVETAIL_TESTS_INTEGRATION_TWO_PROCESSES_H_

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <new>
#include <string>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/posix.h"
#include "gtest/gtest.h"

namespace dovetail::testing {

inline absl::Duration CpuTime() {
  rusage used;
  getrusage(RUSAGE_SELF, &used);
  return absl::DurationFromTimeval(used.ru_utime) + absl::DurationFromTimeval(used.ru_stime);
}

// `Extra`: what else is shared; begins as zeros.
template <typename Extra>
class TwoProcesses : public ::testing::Test {
 protected:
  static constexpr absl::Duration kPatience = absl::Seconds(120);

  struct Result {
    absl::Status status;
    absl::Duration wall, cpu;  // of what Measure() has measured last
  };
  struct Shared {
    std::atomic<int> reached[2];
    struct Report {
      int code;
      char message[1000];
      double wall_s, cpu_s;
    } reports[2];
    Extra extra;
  };
  using Side = std::function<absl::Status()>;

  // Forks; the sides must not have begun any thread before.
  void Start(const Side& first, const Side& second) {
    pids_[0] = Fork(0, first);
    pids_[1] = Fork(1, second);
  }
  void Kill(int side) { kill(pids_[side], SIGKILL); }

  // Waits until the side ends.
  Result Join(int side) {
    const absl::Time end = absl::Now() + kPatience;
    int state = 0;
    while (waitpid(pids_[side], &state, WNOHANG) == 0) {
      if (absl::Now() > end) return {absl::InternalError("the side does not end")};
      absl::SleepFor(absl::Milliseconds(1));
    }
    pids_[side] = 0;
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) return {absl::InternalError("it crashed")};
    const auto& report = shared_->reports[side];
    return {absl::Status(static_cast<absl::StatusCode>(report.code), report.message),
            absl::Seconds(report.wall_s), absl::Seconds(report.cpu_s)};
  }

  // How far a side has come, said by itself, waited for by the others.
  void Reach(int side, int mark) { shared_->reached[side].store(mark); }
  void AwaitReached(int side, int mark) {
    const absl::Time end = absl::Now() + kPatience;
    while (shared_->reached[side].load() < mark) {
      DT_CHECK(absl::Now() < end);
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  // Runs `fn`, whose time Join() will tell.
  absl::Status Measure(int side, const Side& fn) {
    const absl::Time begun = absl::Now();
    const absl::Duration cpu = CpuTime();
    absl::Status status = fn();
    shared_->reports[side].wall_s = absl::ToDoubleSeconds(absl::Now() - begun);
    shared_->reports[side].cpu_s = absl::ToDoubleSeconds(CpuTime() - cpu);
    return status;
  }
  Extra& extra() { return shared_->extra; }

  void TearDown() override {
    for (const pid_t pid : pids_) {
      if (pid == 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }

 private:
  pid_t Fork(int side, const Side& fn) {
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    const absl::Status status = fn();
    auto& report = shared_->reports[side];
    report.code = static_cast<int>(status.code());
    const size_t bytes = std::min(status.message().size(), sizeof(report.message) - 1);
    std::copy_n(status.message().data(), bytes, report.message);
    _exit(0);
  }

  MemoryMap map_ = MemoryMap::MapAnonymous(sizeof(Shared)).value();
  Shared* const shared_ = new (map_.data()) Shared();
  std::array<pid_t, 2> pids_ = {};
};

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_INTEGRATION_TWO_PROCESSES_H_
