#include "transport/run_dir.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/posix.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "transport/shared_segment.h"

namespace dovetail::transport {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

TEST(RunDir, IsFoundByAWorker) {
  const testing::TempDir parent;
  const std::string path = parent.File("job");
  ASSERT_OK_AND_ASSIGN(auto made, RunDir::Create(path));
  ASSERT_OK_AND_ASSIGN(auto opened, RunDir::Open(path, 0));
  EXPECT_EQ(opened->id(), made->id());
  EXPECT_EQ(made->id().size(), 32u);
  EXPECT_EQ(opened->path(), path);
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST(RunDir, NamesItsFiles) {
  const testing::TempDir parent;
  ASSERT_OK_AND_ASSIGN(auto dir, RunDir::Create(parent.path()));
  EXPECT_EQ(dir->WeightsPath("cpu:0"), parent.File("cpu-0.weights"));
  EXPECT_EQ(dir->KvPath("org/a:b/cpu:0"), parent.File("org%2Fa%3Ab%2Fcpu-0.kv"));
  EXPECT_EQ(dir->ExchangePath(3, "org/a"), parent.File("exchange-org%2Fa-3"));
  EXPECT_EQ(dir->KvPath("host-b/cuda:1"), parent.File("host-b%2Fcuda-1.kv"));
  EXPECT_EQ(dir->ExchangePath(12), parent.File("exchange-12"));
}

TEST(RunDir, IsWaitedFor) {
  const testing::TempDir parent;
  const std::string path = parent.File("job");
  absl::StatusOr<std::unique_ptr<RunDir>> opened;
  std::thread worker([&] { opened = RunDir::Open(path, 60000); });
  absl::SleepFor(absl::Milliseconds(30));
  ASSERT_OK_AND_ASSIGN(auto made, RunDir::Create(path));
  worker.join();
  ASSERT_OK(opened);
  EXPECT_EQ((*opened)->id(), made->id());
}

TEST(RunDir, SaysWhatIsMissing) {
  const testing::TempDir parent;
  EXPECT_THAT(RunDir::Open(parent.File("job"), 10),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       ::testing::AllOf(HasSubstr("no coordinator after 10 ms"),
                                        HasSubstr("No such file"), HasSubstr("--run-dir"))));
  ASSERT_OK(WriteFileAtomically(parent.File("id"), "nonsense"));
  EXPECT_THAT(RunDir::Open(parent.path(), 10),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("malformed")));
  EXPECT_THAT(RunDir::Create(parent.File("a/b")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("a/b")));
  EXPECT_THAT(RunDir::Create(parent.File("id")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not a directory")));
}

TEST(RunDir, HasOneCoordinator) {
  const testing::TempDir parent;
  ASSERT_OK_AND_ASSIGN(auto first, RunDir::Create(parent.path()));
  EXPECT_THAT(RunDir::Create(parent.path()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr(absl::StrCat("process ", getpid()))));
  first.reset();
  EXPECT_OK(RunDir::Create(parent.path()));
}

TEST(RunDir, IsTakenOverWithItsIdAndSegments) {
  const testing::TempDir parent;
  std::string id;
  {
    ASSERT_OK_AND_ASSIGN(auto first, RunDir::Create(parent.path()));
    id = first->id();
    ASSERT_OK(WriteFileAtomically(first->ExchangePath(3), "old rings"));
    ASSERT_OK(WriteFileAtomically(first->WeightsPath("cpu:0"), "weights"));
  }
  ASSERT_OK_AND_ASSIGN(auto second, RunDir::Create(parent.path()));
  EXPECT_EQ(second->id(), id);
  EXPECT_FALSE(Exists(second->ExchangePath(3)));
  EXPECT_TRUE(Exists(second->WeightsPath("cpu:0")));
}

TEST(RunDir, ReplacesAMalformedId) {
  const testing::TempDir parent;
  ASSERT_OK(WriteFileAtomically(parent.File("id"), "nonsense"));
  ASSERT_OK_AND_ASSIGN(auto dir, RunDir::Create(parent.path()));
  EXPECT_EQ(dir->id().size(), 32u);
}

TEST(RunDir, RemovesOnlyWhatItKnows) {
  const testing::TempDir parent;
  for (const bool foreign : {false, true}) {
    const std::string path = parent.File("job");
    ASSERT_OK_AND_ASSIGN(auto dir, RunDir::Create(path));
    for (const std::string& file :
         {dir->ExchangePath(1), dir->WeightsPath("cpu:0"), dir->KvPath("cpu:0")}) {
      ASSERT_OK(WriteFileAtomically(file, "x"));
    }
    if (foreign) {
      ASSERT_OK(WriteFileAtomically(path + "/thesis.txt", "x"));
    }
    dir->RemoveAll();
    EXPECT_EQ(Exists(path), foreign);
    EXPECT_EQ(Exists(path + "/thesis.txt"), foreign);
    EXPECT_FALSE(Exists(path + "/cpu-0.kv"));
  }
}

// A process id that was ours a moment ago and is nobody's now.
pid_t DeadProcess() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int state;
  EXPECT_EQ(waitpid(child, &state, 0), child);
  return child;
}

TEST(RunDir, DefaultPathRemovesLeftoversOfDeadJobs) {
  const testing::TempDir parent;
  const std::string dead = parent.File(absl::StrCat("dovetail-", DeadProcess(), "-0011aabb"));
  {
    ASSERT_OK_AND_ASSIGN(auto dir, RunDir::Create(dead));
    ASSERT_OK(WriteFileAtomically(dir->WeightsPath("cpu:0"), "x"));
    // Its lock is held here: not dead after all.
    RunDir::DefaultPathUnder(parent.path());
    EXPECT_TRUE(Exists(dead));
    dir.reset();
    // A worker of it still works.
    ASSERT_OK_AND_ASSIGN(auto segment, SharedSegment::OpenOrCreate(dead + "/cpu-0.kv", 1, 10));
    RunDir::DefaultPathUnder(parent.path());
    EXPECT_TRUE(Exists(dead));
  }
  const std::string fresh = RunDir::DefaultPathUnder(parent.path());
  EXPECT_FALSE(Exists(dead));
  EXPECT_THAT(fresh, HasSubstr(absl::StrCat("dovetail-", getpid(), "-")));
  EXPECT_FALSE(Exists(fresh));
  EXPECT_NE(RunDir::DefaultPathUnder(parent.path()), fresh);
}

TEST(RunDir, DefaultPathKeepsWhatMayBeAlive) {
  const testing::TempDir parent;
  const pid_t dead = DeadProcess();
  const std::string ours = parent.File(absl::StrCat("dovetail-", getpid(), "-00000000"));
  const std::string beginning = parent.File(absl::StrCat("dovetail-", dead, "-11111111"));
  const std::string abandoned = parent.File(absl::StrCat("dovetail-", dead, "-22222222"));
  const std::string other = parent.File("dovetail-notes");
  for (const std::string& path : {ours, beginning, abandoned, other}) {
    ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  }
  const timeval long_ago[2] = {{1000000000, 0}, {1000000000, 0}};
  ASSERT_EQ(utimes(abandoned.c_str(), long_ago), 0);
  ASSERT_EQ(utimes(other.c_str(), long_ago), 0);
  RunDir::DefaultPathUnder(parent.path());
  EXPECT_TRUE(Exists(ours));
  EXPECT_TRUE(Exists(beginning));
  EXPECT_FALSE(Exists(abandoned));
  EXPECT_TRUE(Exists(other));
}

TEST(RunDir, LockEndsWithTheProcess) {
  const testing::TempDir parent;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const bool ok = RunDir::Create(parent.path()).ok();
    absl::StatusOr<std::unique_ptr<RunDir>> dir = RunDir::Create(parent.path());
    const char byte = ok && dir.ok() ? 'y' : 'n';
    if (write(ready[1], &byte, 1) != 1) _exit(1);
    pause();
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_THAT(RunDir::Create(parent.path()), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                      HasSubstr(absl::StrCat("process ", child))));
  ASSERT_EQ(kill(child, SIGKILL), 0);
  int state;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_OK(RunDir::Create(parent.path()));
  close(ready[0]);
  close(ready[1]);
}

}  // namespace
}  // namespace dovetail::transport
