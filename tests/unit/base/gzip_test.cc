#include "base/gzip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/posix.h"

namespace dovetail {
namespace {

using ::testing::HasSubstr;

// `printf 'hello gzip' | gzip -n`
const std::string kPacked(
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xcb\x48\xcd\xc9\xc9\x57\x48\xaf\xca\x2c\x00\x00"
    "\x19\x6a\xd2\xdf\x0a\x00\x00\x00",
    30);

TEST(Gzip, UnpacksWhatIsPackedAndLeavesTheRest) {
  EXPECT_EQ(Gunzip(kPacked, 100, "x").value(), "hello gzip");
  EXPECT_EQ(Gunzip("plain", 100, "x").value(), "plain");
  EXPECT_EQ(Gunzip("", 100, "x").value(), "");
}

TEST(Gzip, SaysWhatIsWrong) {
  EXPECT_EQ(Gunzip(kPacked.substr(0, 20), 100, "x").status().message(),
            "x: is damaged or cut off (gzip)");
  std::string damaged = kPacked;
  damaged[12] ^= 0x55;
  EXPECT_FALSE(Gunzip(damaged, 100, "x").ok());
  EXPECT_EQ(Gunzip(kPacked, 9, "x").status().message(), "x: has more than 9 bytes once unpacked");
}

TEST(Gzip, ReadsFiles) {
  const std::string path = ::testing::TempDir() + "gzip_test.gz";
  ASSERT_TRUE(WriteFileAtomically(path, kPacked).ok());
  EXPECT_EQ(ReadMaybeGzipped(path, 100).value(), "hello gzip");
  EXPECT_THAT(ReadMaybeGzipped(path + ".none", 100).status().message(), HasSubstr("No such file"));
}

}  // namespace
}  // namespace dovetail
