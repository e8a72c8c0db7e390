#include "base/posix.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class PosixTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "dovetail-posix-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    path_ = dir_ + "/file";
  }
  void TearDown() override {
    unlink(path_.c_str());
    rmdir(dir_.c_str());
  }
  std::string dir_, path_;
};

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) != -1; }

TEST_F(PosixTest, UniqueFdClosesOnce) {
  int raw;
  {
    ASSERT_OK_AND_ASSIGN(UniqueFd fd, OpenFile(dir_, O_RDONLY));
    raw = fd.get();
    EXPECT_TRUE(IsOpen(raw));
    EXPECT_NE(fcntl(raw, F_GETFD) & FD_CLOEXEC, 0);
    UniqueFd moved = std::move(fd);
    EXPECT_EQ(moved.get(), raw);
    moved = UniqueFd();
    EXPECT_FALSE(IsOpen(raw));
    EXPECT_FALSE(moved.valid());
  }
}

TEST_F(PosixTest, ErrorsNameOperationPathAndReason) {
  EXPECT_THAT(OpenFile(path_, O_RDONLY),
              StatusIs(absl::StatusCode::kNotFound,
                       ::testing::AllOf(HasSubstr("open " + path_), HasSubstr("No such file"))));
  EXPECT_THAT(ErrnoStatus(EACCES, "open", "x"),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("open x")));
}

TEST_F(PosixTest, FilesRoundTrip) {
  const std::string content(100000, 'q');
  ASSERT_OK(WriteFileAtomically(path_, content));
  ASSERT_OK_AND_ASSIGN(const std::string got, ReadFile(path_, content.size()));
  EXPECT_EQ(got, content);
  EXPECT_THAT(ReadFile(path_, content.size() - 1),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("more than 99999 bytes")));
  ASSERT_OK(WriteFileAtomically(path_, ""));
  ASSERT_OK_AND_ASSIGN(const std::string empty, ReadFile(path_, 0));
  EXPECT_EQ(empty, "");
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(PosixTest, FailedWriteLeavesNothing) {
  EXPECT_THAT(WriteFileAtomically(dir_ + "/absent/file", "x"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent/file")));
  // A directory cannot be replaced by a file.
  ASSERT_EQ(mkdir(path_.c_str(), 0700), 0);
  EXPECT_THAT(WriteFileAtomically(path_, "x"), ::testing::Not(testing::IsOk()));
  EXPECT_NE(access((path_ + ".tmp").c_str(), F_OK), 0);
  rmdir(path_.c_str());
}

TEST_F(PosixTest, MappingsOfAFileAreShared) {
  ASSERT_OK_AND_ASSIGN(UniqueFd fd, OpenFile(path_, O_RDWR | O_CREAT));
  ASSERT_OK(ReserveFile(fd, path_, 5000));
  ASSERT_OK_AND_ASSIGN(const uint64_t bytes, FileBytes(fd, path_));
  EXPECT_EQ(bytes, 5000u);
  ASSERT_OK_AND_ASSIGN(MemoryMap a, MemoryMap::MapFile(fd, 5000, path_));
  ASSERT_OK_AND_ASSIGN(MemoryMap b, MemoryMap::MapFile(fd, 5000, path_));
  a.data()[4999] = 42;
  EXPECT_EQ(b.data()[4999], 42);
  MemoryMap c = std::move(a);
  EXPECT_EQ(c.data()[4999], 42);
  EXPECT_EQ(a.size(), 0u);
  EXPECT_THAT(MemoryMap::MapFile(fd, 5001, path_),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("has 5000 bytes where 5001")));
}

TEST_F(PosixTest, ReserveFileSaysBothFigures) {
  ASSERT_OK_AND_ASSIGN(UniqueFd fd, OpenFile(path_, O_RDWR | O_CREAT));
  EXPECT_THAT(
      ReserveFile(fd, path_, uint64_t{1} << 55),
      StatusIs(absl::StatusCode::kResourceExhausted,
               ::testing::AllOf(HasSubstr("needs 36028797018963968 bytes"), HasSubstr(" free"))));
}

}  // namespace
}  // namespace dovetail
