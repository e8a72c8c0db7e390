#include "coordinator/supervisor.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(20);

template <typename Condition>
bool WaitFor(const Condition& condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest() {
    dir_ = absl::StrCat(::testing::TempDir(), "/supervisor-", ::getpid(), "-", ++counter_);
    std::filesystem::create_directories(dir_);
  }
  ~SupervisorTest() override { std::filesystem::remove_all(dir_); }

  // Workers that run `script` with their name as $1; every start appends the pid to DIR/NAME.
  SupervisorOptions Options(const std::string& script, std::vector<std::string> workers = {"w0"}) {
    SupervisorOptions options;
    options.worker_binary = "/bin/sh";
    options.workers = std::move(workers);
    const std::string whole = absl::StrCat("echo $$ >> ", dir_, "/$1\n", script);
    options.arguments = [whole](const std::string& worker) {
      return std::vector<std::string>{"-c", whole, "worker", worker};
    };
    options.on_give_up = [this](const absl::Status& status) {
      give_up_status_ = status;
      gave_up_.Notify();
    };
    options.first_pause = absl::Milliseconds(20);
    options.longest_pause = absl::Milliseconds(50);
    return options;
  }
  std::vector<pid_t> Pids(const std::string& worker) const {
    std::ifstream in(dir_ + "/" + worker);
    std::vector<pid_t> pids;
    for (pid_t pid; in >> pid;) pids.push_back(pid);
    return pids;
  }
  // Reaped and gone: neither running nor a zombie.
  static bool Gone(pid_t pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }
  void ExpectNoneLeft(const std::vector<std::string>& workers = {"w0"}) {
    for (const std::string& worker : workers) {
      for (pid_t pid : Pids(worker)) EXPECT_TRUE(Gone(pid)) << worker << " " << pid;
    }
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
  }

  static inline int counter_ = 0;
  std::string dir_;
  absl::Notification gave_up_;
  absl::Status give_up_status_;
};

TEST_F(SupervisorTest, StartsAndStopsEveryWorker) {
  ASSERT_OK_AND_ASSIGN(auto supervisor,
                       Supervisor::Start(Options("exec sleep 1000", {"w0", "w1"})));
  ASSERT_TRUE(WaitFor([&] { return Pids("w0").size() == 1 && Pids("w1").size() == 1; }));
  EXPECT_FALSE(Gone(Pids("w0")[0]));
  supervisor->Stop();
  ExpectNoneLeft({"w0", "w1"});
}

TEST_F(SupervisorTest, StartsAWorkerAgainThatWasKilled) {
  ASSERT_OK_AND_ASSIGN(auto supervisor, Supervisor::Start(Options("exec sleep 1000")));
  ASSERT_TRUE(WaitFor([&] { return Pids("w0").size() == 1; }));
  const absl::Time killed = absl::Now();
  ::kill(Pids("w0")[0], SIGKILL);
  ASSERT_TRUE(WaitFor([&] { return Pids("w0").size() == 2; }));
  EXPECT_LT(absl::Now() - killed, absl::Seconds(2)) << "the first restart has no pause";
  EXPECT_NE(Pids("w0")[0], Pids("w0")[1]);
  supervisor.reset();
  ExpectNoneLeft();
}

TEST_F(SupervisorTest, GivesUpOnAWorkerThatKeepsDying) {
  ASSERT_OK_AND_ASSIGN(auto supervisor,
                       Supervisor::Start(Options("echo no such device >&2\nexit 3")));
  ASSERT_TRUE(gave_up_.WaitForNotificationWithTimeout(kPatience));
  EXPECT_THAT(give_up_status_,
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("worker w0 died 5 times"), HasSubstr("exit status 3"),
                             HasSubstr("no such device"))));
  absl::SleepFor(absl::Milliseconds(200));
  EXPECT_EQ(Pids("w0").size(), 5u) << "not started any more";
  supervisor.reset();
  ExpectNoneLeft();
}

TEST_F(SupervisorTest, NamesTheSignalThatKilled) {
  ASSERT_OK_AND_ASSIGN(auto supervisor, Supervisor::Start(Options("kill -9 $$")));
  ASSERT_TRUE(gave_up_.WaitForNotificationWithTimeout(kPatience));
  EXPECT_THAT(std::string(give_up_status_.message()), HasSubstr("killed by signal 9 (Killed)"));
}

TEST_F(SupervisorTest, ForgivesTheDeathsOfWorkersThatWereReady) {
  SupervisorOptions options = Options("exec sleep 1000");
  options.give_up_deaths = 2;
  ASSERT_OK_AND_ASSIGN(auto supervisor, Supervisor::Start(std::move(options)));
  for (size_t starts = 1; starts <= 5; ++starts) {
    ASSERT_TRUE(WaitFor([&] { return Pids("w0").size() == starts; })) << starts;
    supervisor->NoteReady();
    absl::SleepFor(absl::Milliseconds(50));  // NoteReady is taken up by the supervisor's thread
    ::kill(Pids("w0").back(), SIGKILL);
  }
  ASSERT_TRUE(WaitFor([&] { return Pids("w0").size() == 6; }));
  EXPECT_FALSE(gave_up_.HasBeenNotified());
}

TEST_F(SupervisorTest, KillsAWorkerThatDoesNotEnd) {
  SupervisorOptions options = Options("trap '' TERM\nwhile :; do sleep 0.05; done");
  options.kill_after = absl::Milliseconds(300);
  ASSERT_OK_AND_ASSIGN(auto supervisor, Supervisor::Start(std::move(options)));
  ASSERT_TRUE(WaitFor([&] { return Pids("w0").size() == 1; }));
  absl::SleepFor(absl::Milliseconds(100));  // until the trap is set
  const absl::Time start = absl::Now();
  supervisor->Stop();
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(250));
  ExpectNoneLeft();
}

TEST_F(SupervisorTest, LetsWorkersEndThatWereToldTo) {
  ASSERT_OK_AND_ASSIGN(auto supervisor, Supervisor::Start(Options("sleep 0.3")));
  ASSERT_TRUE(WaitFor([&] { return Pids("w0").size() == 1; }));
  supervisor->ExpectExit();
  ASSERT_TRUE(WaitFor([&] { return Gone(Pids("w0")[0]); }));
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(Pids("w0").size(), 1u);
}

TEST_F(SupervisorTest, SaysThatTheBinaryCannotBeRun) {
  SupervisorOptions options = Options("");
  options.worker_binary = "/nowhere/dovetail-worker";
  EXPECT_THAT(Supervisor::Start(std::move(options)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/dovetail-worker")));
  ExpectNoneLeft({});
}

TEST_F(SupervisorTest, ChildrenInheritNoDescriptor) {
  const int leaked = ::dup(STDERR_FILENO);  // as libraries do: without O_CLOEXEC
  ASSERT_OK_AND_ASSIGN(
      auto supervisor,
      Supervisor::Start(Options(absl::StrCat("ls /proc/$$/fd > ", dir_, "/fds.tmp\nmv ", dir_,
                                             "/fds.tmp ", dir_, "/fds\nexec sleep 1000"))));
  ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(dir_ + "/fds"); }));
  std::ifstream in(dir_ + "/fds");
  std::vector<int> fds;
  for (int fd; in >> fd;) fds.push_back(fd);
  EXPECT_EQ(std::count(fds.begin(), fds.end(), leaked), 0);
  EXPECT_EQ(std::count(fds.begin(), fds.end(), 0), 1);
  ::close(leaked);
}

}  // namespace
}  // namespace dovetail::coordinator
