#include "coordinator/placement/device_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dovetail::coordinator {
namespace {

std::string ErrorOf(const std::vector<std::string>& entries) {
  return std::string(DeviceMap::Parse(entries).status().message());
}

TEST(DeviceMap, TheFirstEntryThatFitsCountsAndNothingIsChained) {
  const DeviceMap map =
      DeviceMap::Parse({"cuda:1=cuda:0", "cuda:*=host-b/cuda:2", " npu = cpu "}).value();
  EXPECT_EQ(map.Apply("cuda:1"), "cuda:0");
  EXPECT_EQ(map.Apply("cuda:0"), "host-b/cuda:2");
  EXPECT_EQ(map.Apply("npu:0"), "cpu");
  EXPECT_EQ(map.Apply("npu:1"), "npu:1");
  EXPECT_EQ(map.Apply("cpu"), "cpu");
  EXPECT_EQ(map.Apply(""), "");
  EXPECT_TRUE(DeviceMap().empty());
  EXPECT_EQ(DeviceMap().Apply("cuda:7"), "cuda:7");
}

TEST(DeviceMap, AGroupGoesToAnotherWithItsNumbers) {
  const DeviceMap map = DeviceMap::Parse({"cuda:7=cpu:0", "cuda:*=simt:*"}).value();
  EXPECT_EQ(map.Apply("cuda:0"), "simt:0");
  EXPECT_EQ(map.Apply("cuda:12"), "simt:12");
  EXPECT_EQ(map.Apply("cuda:*"), "simt:*");
  EXPECT_EQ(map.Apply("cuda:7"), "cpu:0");
  EXPECT_EQ(map.Apply("cpu:1"), "cpu:1");
}

TEST(DeviceMap, SaysWhatIsNoEntry) {
  const std::string rest =
      "` must be FROM=TO, such as cuda:1=cuda:0, cuda:*=cpu:0 or cuda:*=simt:*";
  for (const char* bad : {"cuda:1", "cuda:1=", "=cpu", "cuda:1=cuda:*", "a=b", "cuda:1=x=y", ""}) {
    EXPECT_EQ(ErrorOf({bad}), std::string("--map: `") + bad + rest);
  }
  EXPECT_EQ(ErrorOf({"a", "cuda=cpu", "b"}), "--map: `a" + rest + "\n--map: `b" + rest);
}

}  // namespace
}  // namespace dovetail::coordinator
