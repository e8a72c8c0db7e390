#include "base/process_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace dovetail {
namespace {

constexpr size_t kBytes = size_t{32} << 20;
constexpr int64_t kSlack = int64_t{2} << 20;  // what the heap and the stack do meanwhile

// Growth of HeldBytes() and ResidentBytes() by mapping kBytes and touching every page.
struct Growth {
  int64_t held;
  int64_t resident;
};
Growth Touch(int protection, int flags, int fd) {
  const auto held = static_cast<int64_t>(HeldBytes());
  const auto resident = static_cast<int64_t>(ResidentBytes());
  void* map = mmap(nullptr, kBytes, protection, flags, fd, 0);
  EXPECT_NE(map, MAP_FAILED);
  volatile uint8_t* bytes = static_cast<uint8_t*>(map);
  int sum = 0;
  for (size_t i = 0; i < kBytes; i += 4096) {
    if ((protection & PROT_WRITE) != 0) bytes[i] = 1;
    sum += bytes[i];
  }
  EXPECT_GE(sum, 0);
  const Growth growth = {static_cast<int64_t>(HeldBytes()) - held,
                         static_cast<int64_t>(ResidentBytes()) - resident};
  munmap(map, kBytes);
  return growth;
}

TEST(ProcessMemory, PrivatePagesAreHeld) {
  const Growth growth = Touch(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  EXPECT_NEAR(growth.held, kBytes, kSlack);
  EXPECT_GE(PrivateResidentBytes(), 1u << 16);
  EXPECT_GE(PeakResidentBytes(), kBytes) << "it remembers what is unmapped";
}

TEST(ProcessMemory, SharedMemoryIsHeldWhereItWasTouched) {
  const int fd = memfd_create("process_memory_test", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, kBytes), 0);
  EXPECT_NEAR(Touch(PROT_READ | PROT_WRITE, MAP_SHARED, fd).held, kBytes, kSlack);
  close(fd);
}

TEST(ProcessMemory, PagesOfFilesAreNot) {
  const std::string path = ::testing::TempDir() + "process_memory_test";
  const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  struct statfs system = {};
  ASSERT_EQ(fstatfs(fd, &system), 0);
  const std::string data(kBytes, 'x');
  ASSERT_EQ(write(fd, data.data(), kBytes), static_cast<ssize_t>(kBytes));
  const Growth growth = Touch(PROT_READ, MAP_SHARED, fd);
  close(fd);
  unlink(path.c_str());
  if (system.f_type == TMPFS_MAGIC) GTEST_SKIP() << path << " lies in memory";
  EXPECT_NEAR(growth.resident, kBytes, kSlack);
  EXPECT_NEAR(growth.held, 0, kSlack);
}

}  // namespace
}  // namespace dovetail
