#include "transport/shared_segment.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/posix.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace dovetail::transport {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class SharedSegmentTest : public ::testing::Test {
 protected:
  std::unique_ptr<SharedSegment> Open(uint64_t key, uint64_t bytes) {
    absl::StatusOr<std::unique_ptr<SharedSegment>> segment =
        SharedSegment::OpenOrCreate(path_, key, bytes);
    EXPECT_OK(segment);
    return *std::move(segment);
  }
  void Fill(uint64_t key, uint64_t bytes, bool complete) {
    const std::unique_ptr<SharedSegment> segment = Open(key, bytes);
    EXPECT_FALSE(segment->was_complete());
    std::fill_n(segment->data(), bytes, uint8_t{0xab});
    if (complete) segment->MarkComplete();
  }
  void ExpectNewAndZero(uint64_t key, uint64_t bytes) {
    const std::unique_ptr<SharedSegment> segment = Open(key, bytes);
    EXPECT_FALSE(segment->was_complete());
    EXPECT_EQ(segment->bytes(), bytes);
    EXPECT_EQ(std::count(segment->data(), segment->data() + bytes, 0), static_cast<int64_t>(bytes));
  }

  testing::TempDir dir_;
  std::string path_ = dir_.File("cpu-0.weights");
};

TEST_F(SharedSegmentTest, IsZeroAlignedAndPrivateToTheUser) {
  ExpectNewAndZero(1, 100001);
  const std::unique_ptr<SharedSegment> segment = Open(1, 100001);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(segment->data()) % 4096, 0u);
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  // Its room is really there.
  EXPECT_GE(info.st_blocks * 512, 100001);
}

TEST_F(SharedSegmentTest, IsUsedAgainWhenComplete) {
  Fill(7, 5000, true);
  const std::unique_ptr<SharedSegment> again = Open(7, 5000);
  EXPECT_TRUE(again->was_complete());
  EXPECT_EQ(std::count(again->data(), again->data() + 5000, 0xab), 5000);
}

TEST_F(SharedSegmentTest, OutlivesAKilledProcess) {
  const pid_t child = fork();
  if (child == 0) {
    absl::StatusOr<std::unique_ptr<SharedSegment>> segment =
        SharedSegment::OpenOrCreate(path_, 7, 5000);
    if (!segment.ok()) _exit(1);
    std::fill_n((*segment)->data(), 5000, uint8_t{0xcd});
    (*segment)->MarkComplete();
    kill(getpid(), SIGKILL);
  }
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  ASSERT_TRUE(WIFSIGNALED(state));
  const std::unique_ptr<SharedSegment> again = Open(7, 5000);
  EXPECT_TRUE(again->was_complete());
  EXPECT_EQ(std::count(again->data(), again->data() + 5000, 0xcd), 5000);
}

TEST_F(SharedSegmentTest, IsMadeAnewWhenIncomplete) {
  Fill(7, 5000, false);
  ExpectNewAndZero(7, 5000);
}

TEST_F(SharedSegmentTest, IsMadeAnewForAnotherKey) {
  Fill(7, 5000, true);
  ExpectNewAndZero(8, 5000);
}

TEST_F(SharedSegmentTest, IsMadeAnewForAnotherSize) {
  Fill(7, 5000, true);
  ExpectNewAndZero(7, 6000);
}

TEST_F(SharedSegmentTest, IsMadeAnewFromAnyOtherFile) {
  for (const std::string& content : {std::string(), std::string("x"), std::string(9096, 'y')}) {
    ASSERT_OK(WriteFileAtomically(path_, content));
    ExpectNewAndZero(7, 5000);
  }
}

TEST_F(SharedSegmentTest, HasOneOwnerAtATime) {
  const std::unique_ptr<SharedSegment> owner = Open(7, 5000);
  EXPECT_THAT(SharedSegment::OpenOrCreate(path_, 7, 5000),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has this segment open")));
}

TEST_F(SharedSegmentTest, SaysHowMuchRoomIsMissing) {
  EXPECT_THAT(
      SharedSegment::OpenOrCreate(path_, 7, uint64_t{1} << 50),
      StatusIs(absl::StatusCode::kResourceExhausted,
               ::testing::AllOf(HasSubstr("needs 1125899906846720 bytes"), HasSubstr(" free"))));
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(SharedSegmentTest, NamesTheDirectoryThatIsAbsent) {
  EXPECT_THAT(SharedSegment::OpenOrCreate(dir_.File("no/cpu.kv"), 7, 10),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/cpu.kv")));
}

}  // namespace
}  // namespace dovetail::transport
