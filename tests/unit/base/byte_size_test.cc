#include "base/byte_size.h"

#include <string>

#include "gtest/gtest.h"

namespace dovetail {
namespace {

TEST(ParseBytesTest, KnowsBothKindsOfUnits) {
  const auto bytes = [](const std::string& text) { return ParseBytes(text).value_or(-1); };
  EXPECT_EQ(bytes("1000"), 1000);
  EXPECT_EQ(bytes("8GiB"), int64_t{8} << 30);
  EXPECT_EQ(bytes("8 GiB"), int64_t{8} << 30);
  EXPECT_EQ(bytes("1.5GB"), 1'500'000'000);
  EXPECT_EQ(bytes("512Mi"), int64_t{512} << 20);
  EXPECT_EQ(bytes("2T"), 2'000'000'000'000);
  for (const char* bad : {"", "GiB", "-1", "1XB", "1.2.3", "0", "99999999TiB", "1e3", "nan"}) {
    EXPECT_EQ(bytes(bad), -1) << bad;
  }
}

TEST(FormatBytesTest, TakesTheLargestUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(int64_t{3} << 29), "1.50 GiB");
}

}  // namespace
}  // namespace dovetail
