#include "coordinator/local_devices.h"

#include "gmock/gmock.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(LocalCpus, AreDisjointWhereThereAreEnough) {
  ServeConfig config;
  config.workers = {"cpu:0", "cpu:1"};
  config.threads = 2;
  config.own_cores = true;
  EXPECT_THAT(LocalCpus(config, {0, 2, 4, 6, 8}),
              ElementsAre(ElementsAre(0, 2), ElementsAre(4, 6)));
  EXPECT_THAT(LocalCpus(config, {0, 2, 4}), ElementsAre(IsEmpty(), IsEmpty()));
  config.own_cores = false;
  EXPECT_THAT(LocalCpus(config, {0, 2, 4, 6}), ElementsAre(IsEmpty(), IsEmpty()));
}

TEST(LocalDevices, OneForEachWorker) {
  ServeConfig config;
  config.workers = {"cpu:0", "cpu:1"};
  config.threads = 3;
  config.memory["cpu:1"] = 1 << 30;
  const std::vector<DeviceInfo> devices = LocalDevices(config);
  ASSERT_THAT(devices, SizeIs(2));
  EXPECT_EQ(devices[0].memory_pool, "this machine");
  EXPECT_EQ(devices[1].memory_bytes, 1 << 30);
  EXPECT_EQ(devices[1].memory_pool, "");
  EXPECT_EQ(devices[1].num_threads, 3);
  EXPECT_EQ(devices[1].layout, PackedLayout::kP16);
  config.weights = "in_place";
  EXPECT_EQ(LocalDevices(config)[1].layout, PackedLayout::kInPlace);
}

TEST(LocalDevices, GpusHaveMemoryOfTheirOwn) {
  ServeConfig config;
  config.workers = {"cuda:0", "simt:0"};
  config.weights = "in_place";
  const std::vector<DeviceInfo> devices = LocalDevices(config);
  EXPECT_EQ(devices[0].kind, DeviceKind::kCuda);
  EXPECT_EQ(devices[0].layout, PackedLayout::kP16Device);
  EXPECT_EQ(devices[0].memory_bytes, 0) << "not known before its worker tells";
  EXPECT_EQ(devices[1].kind, DeviceKind::kSimt);
  EXPECT_EQ(devices[1].layout, PackedLayout::kP16Device);
  EXPECT_EQ(devices[1].memory_pool, "this machine");
}

}  // namespace
}  // namespace dovetail::coordinator
