#include "coordinator/placement/device_info.h"

#include "gtest/gtest.h"

namespace dovetail::coordinator {
namespace {

TEST(DeviceInfoTest, NamesAndGroups) {
  DeviceInfo gpu;
  gpu.name = "cuda:1";
  gpu.kind = DeviceKind::kCuda;
  DeviceInfo cpu;
  cpu.name = "cpu:0";
  cpu.numa_node = 1;
  DeviceInfo far = gpu;
  far.name = "host-b/cuda:1";
  EXPECT_TRUE(Means("cuda:1", gpu));
  EXPECT_TRUE(Means("cuda:*", gpu));
  EXPECT_FALSE(Means("cuda:0", gpu));
  EXPECT_FALSE(Means("cpu:*", gpu));
  EXPECT_FALSE(Means("numa:*", gpu));
  EXPECT_TRUE(Means("numa:1", cpu));
  EXPECT_TRUE(Means("numa:*", cpu));
  EXPECT_FALSE(Means("numa:0", cpu));
  EXPECT_FALSE(Means("cuda:1", far)) << "a device of another host";
  EXPECT_FALSE(Means("cuda:*", far));
  EXPECT_TRUE(Means("host-b/cuda:1", far));
  EXPECT_TRUE(Means("host-b/cuda:*", far));
  cpu.numa_node = -1;
  EXPECT_FALSE(Means("numa:*", cpu)) << "not bound to a node";
}

TEST(DeviceInfoTest, WellFormedNames) {
  for (const char* good : {"cpu:0", "cuda:*", "numa:17", "host-b/cuda:0", "a.b_c/cpu:*"}) {
    EXPECT_TRUE(IsDevicePattern(good)) << good;
  }
  for (const char* bad : {"", "cpu", "cpu:", "cpu:x", "cpu:-1", "cpu:01", "/cpu:0", "a/b/cpu:0",
                          "cpu:0:1", "cpu:12345", ":0"}) {
    EXPECT_FALSE(IsDevicePattern(bad)) << bad;
  }
  EXPECT_TRUE(IsGroup("cuda:*"));
  EXPECT_TRUE(IsGroup("numa:0"));
  EXPECT_FALSE(IsGroup("cuda:0"));
}

}  // namespace
}  // namespace dovetail::coordinator
