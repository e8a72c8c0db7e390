#include "base/huge_pages.h"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/posix.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail {
namespace {

class HugePagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string dir = ::testing::TempDir() + "huge_pages-XXXXXX";
    ASSERT_NE(mkdtemp(dir.data()), nullptr);
    root_ = dir + "/";
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& content) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << content;
  }
  std::string root_;
};

TEST_F(HugePagesTest, PrivateOnesByTheKernelsChoice) {
  const std::string path = "sys/kernel/mm/transparent_hugepage/enabled";
  EXPECT_FALSE(HasPrivateHugePages(root_)) << "a kernel without them";
  Write(path, "always madvise [never]\n");
  EXPECT_FALSE(HasPrivateHugePages(root_));
  Write(path, "always [madvise] never\n");
  EXPECT_TRUE(HasPrivateHugePages(root_));
  Write(path, "[always] madvise never\n");
  EXPECT_TRUE(HasPrivateHugePages(root_));
}

TEST_F(HugePagesTest, SharedOnesByTheMountOfTheDirectory) {
  EXPECT_FALSE(HasSharedHugePages("/run/dovetail", root_)) << "no list of mounts";
  Write("proc/self/mounts",
        "/dev/vda / ext4 rw,relatime 0 0\n"
        "tmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0\n"
        "tmpfs /run tmpfs rw,huge=never 0 0\n"
        "tmpfs /run/dovetail tmpfs rw,huge=advise,size=8g 0 0\n"
        "tmpfs /run/dovetail/small tmpfs rw 0 0\n");
  EXPECT_TRUE(HasSharedHugePages("/run/dovetail", root_));
  EXPECT_TRUE(HasSharedHugePages("/run/dovetail/7", root_));
  EXPECT_FALSE(HasSharedHugePages("/run/dovetail/small", root_));
  EXPECT_FALSE(HasSharedHugePages("/run/dovetail2", root_)) << "/run holds it";
  EXPECT_FALSE(HasSharedHugePages("/dev/shm/x", root_));
  EXPECT_FALSE(HasSharedHugePages("/home", root_));
}

TEST(MapHugeTest, IsAlignedZeroAndWritable) {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4096}, (uint64_t{5} << 20) + 123}) {
    int parts_made = 0;
    const auto share = [&](absl::FunctionRef<void(int, int)> run) {
      for (; parts_made < 3; ++parts_made) run(parts_made, 3);
    };
    ASSERT_OK_AND_ASSIGN(const MemoryMap map, MemoryMap::MapHuge(bytes, share));
    EXPECT_EQ(parts_made, 3);
    ASSERT_EQ(map.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(map.data()) % (uint64_t{2} << 20), 0u);
    for (uint64_t i = 0; i < bytes; i += 997) ASSERT_EQ(map.data()[i], 0);
    map.data()[0] = 1;
    map.data()[bytes - 1] = 2;
  }
}

TEST(MapHugeTest, TooMuchIsAnError) { EXPECT_FALSE(MemoryMap::MapHuge(uint64_t{1} << 62).ok()); }

}  // namespace
}  // namespace dovetail
