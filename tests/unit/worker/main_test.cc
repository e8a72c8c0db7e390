// The dovetail-worker binary as an operator meets it: flags, signals, exit codes.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "tests/testing/test_data.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;

class Process {
 public:
  explicit Process(std::vector<std::string> args, const char* isa = nullptr) {
    const char* bin = std::getenv("DOVETAIL_BIN");
    args.insert(args.begin(), std::string(bin == nullptr ? "." : bin) + "/dovetail-worker");
    output_path_ = ::testing::TempDir() + "worker_process_output" + std::to_string(getpid());
    const int fd = open(output_path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    pid_ = fork();
    if (pid_ != 0) {
      close(fd);
      return;
    }
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    if (isa != nullptr) setenv("DOVETAIL_ISA", isa, 1);
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    unlink(output_path_.c_str());
  }

  std::string output() const { return testing::ReadFileOrDie(output_path_); }
  void WaitForOutput(const std::string& text) const {
    for (int i = 0; i < 1000 && output().find(text) == std::string::npos; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_THAT(output(), HasSubstr(text));
  }
  void Signal(int signal) const { kill(pid_, signal); }
  // The exit status, or -1 after ten seconds.
  int Wait() {
    for (int i = 0; i < 1000; ++i) {
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return -1;
  }

 private:
  pid_t pid_ = -1;
  std::string output_path_;
};

// A coordinator that nobody runs: the port is reserved and refuses.
const std::vector<std::string> kAlone = {"--coordinator", "127.0.0.1:1", "--run-dir",
                                         "/tmp/dovetail-worker-process-test-absent"};

std::vector<std::string> With(std::vector<std::string> more) {
  more.insert(more.begin(), kAlone.begin(), kAlone.end());
  return more;
}

TEST(WorkerProcess, SigtermWhileWaitingIsSuccess) {
  for (int signal : {SIGTERM, SIGINT}) {
    Process process(With({"--threads", "1"}));
    process.WaitForOutput("waiting for the coordinator");
    process.Signal(signal);
    EXPECT_EQ(process.Wait(), 0);
  }
}

TEST(WorkerProcess, RefusesWrongFlagsWithOneMessage) {
  struct Wrong {
    std::vector<std::string> args;
    std::string message;
  };
  const std::vector<Wrong> cases = {
      {{"--coordinator", "x:1"}, "--run-dir is required"},
      {With({"--name", "gpu"}), "expected cpu:N"},
      {With({"--name", "cpu:-1"}), "expected cpu:N"},
      {With({"--cpus", "3-1"}), "--cpus"},
      {With({"--numa", "777"}), "--numa 777"},
      {With({"--threads", "-4"}), "--threads"},
      {With({"--log-level", "loud"}), "log level \"loud\""},
      {With({"--fast"}), "--fast"},
  };
  for (const Wrong& wrong : cases) {
    Process process(wrong.args);
    const int status = process.Wait();
    EXPECT_GT(status, 0) << wrong.message;
    EXPECT_LT(status, 256) << wrong.message;
    EXPECT_THAT(process.output(), HasSubstr(wrong.message));
  }
}

TEST(WorkerProcess, RefusesAnUnknownInstructionSet) {
  Process process(kAlone, "mmx");
  EXPECT_EQ(process.Wait(), 1);
  EXPECT_THAT(process.output(), HasSubstr("DOVETAIL_ISA=mmx"));
}

TEST(WorkerProcess, ReportsTheIsaThatWasAskedFor) {
  Process process(With({"--threads", "2"}), "scalar");
  process.WaitForOutput("2 threads, scalar");
}

TEST(WorkerProcess, DiesWithItsParent) {
  // A child that starts a worker and ends at once.
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    Process* process = new Process(With({"--threads", "1", "--die-with-parent"}));
    process->WaitForOutput("waiting for the coordinator");
    _exit(0);  // without the destructor's kill
  }
  close(pipe_fds[1]);
  waitpid(parent, nullptr, 0);
  // The worker holds the write end of the pipe: when it is gone, the read ends.
  pollfd end = {pipe_fds[0], POLLIN, 0};
  ASSERT_EQ(poll(&end, 1, 10'000), 1) << "the worker is still there";
  char byte;
  EXPECT_EQ(read(pipe_fds[0], &byte, 1), 0);
  close(pipe_fds[0]);
  unlink((::testing::TempDir() + "worker_process_output" + std::to_string(parent)).c_str());
}

}  // namespace
}  // namespace dovetail::worker
