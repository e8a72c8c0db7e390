#include "coordinator/local_devices.h"

#include "gmock/gmock.h"

namespace dovetail::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

// One thread for a core, all allowed.
CpuTopology Machine(const std::vector<NumaNode>& nodes) {
  CpuTopology topology;
  topology.nodes = nodes;
  for (const NumaNode& node : nodes) {
    for (int cpu : node.cpus) topology.online_cpus.push_back(cpu);
  }
  topology.core_of = topology.allowed_cpus = topology.online_cpus;
  return topology;
}

TEST(LocalCpus, AreDisjointWhereThereAreEnough) {
  ServeConfig config;
  config.workers = {"cpu:0", "cpu:1"};
  config.threads = 2;
  config.own_cores = true;
  EXPECT_THAT(LocalCpus(config, Machine({{0, {0, 2, 4, 6, 8}}})),
              ElementsAre(ElementsAre(0, 2), ElementsAre(4, 6)));
  EXPECT_THAT(LocalCpus(config, Machine({{0, {0, 2, 4}}})), ElementsAre(IsEmpty(), IsEmpty()));
  config.own_cores = false;
  EXPECT_THAT(LocalCpus(config, Machine({{0, {0, 2, 4, 6}}})), ElementsAre(IsEmpty(), IsEmpty()));
}

TEST(LocalNodes, OneForEachCpuWorkerWhereThereAreAsMany) {
  const CpuTopology two = Machine({{0, {0, 1, 2}}, {3, {4, 5}}});
  ServeConfig config;
  config.workers = {"cpu:0", "cuda:0", "cpu:1"};
  EXPECT_THAT(LocalNodes(config, two), ElementsAre(Pair("cpu:0", 0), Pair("cpu:1", 3)));
  EXPECT_THAT(LocalNodes(config, Machine({{0, {0, 1}}})), IsEmpty());
  config.own_cores = true;
  config.threads = 2;
  config.workers = {"cpu:0", "cpu:1"};
  EXPECT_THAT(LocalCpus(config, two), ElementsAre(ElementsAre(0, 1), ElementsAre(4, 5)));
  const std::vector<DeviceInfo> devices = LocalDevices(config, two);
  EXPECT_EQ(devices[1].numa_node, 3);
  EXPECT_EQ(devices[1].memory_pool, "NUMA node 3");
  config.workers = {"cpu:0"};
  EXPECT_THAT(LocalNodes(config, two), IsEmpty()) << "it has the whole machine";
}

TEST(LocalNodes, AreThoseThatAreNamed) {
  const CpuTopology two = Machine({{0, {0, 1, 2}}, {3, {4, 5}}});
  ServeConfig config;
  config.workers = {"cpu:0", "cpu:1"};
  config.numa_auto = false;
  EXPECT_THAT(LocalNodes(config, two), IsEmpty());
  EXPECT_EQ(LocalThreads(config, two), 2);
  config.numa = {{"cpu:0", 3}, {"cpu:1", 3}};
  EXPECT_TRUE(CheckLocalNodes(config, two).ok());
  EXPECT_EQ(LocalThreads(config, two), 1) << "two share a node with two processors";
  config.numa = {{"cpu:1", 1}};
  EXPECT_THAT(std::string(CheckLocalNodes(config, two).message()),
              AllOf(HasSubstr("cpu:1 to node 1"), HasSubstr("nodes: 0, 3")));
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

TEST(LocalDevices, WorkersOfOtherHostsTakeNothingOfThisOne) {
  const CpuTopology two = Machine({{0, {0, 1, 2, 3}}, {1, {4, 5, 6, 7}}});
  ServeConfig config;
  config.workers = {"cpu:0", "host-b/cpu:0", "cpu:1", "host-b/cpu:1"};
  EXPECT_THAT(LocalNodes(config, two), ElementsAre(Pair("cpu:0", 0), Pair("cpu:1", 1)));
  EXPECT_EQ(LocalThreads(config, two), 4);
  EXPECT_THAT(LocalCpus(config, two), SizeIs(2));
  const std::vector<DeviceInfo> devices = LocalDevices(config, two);
  ASSERT_THAT(devices, SizeIs(4));
  EXPECT_EQ(devices[1].memory_pool, "");
  EXPECT_EQ(devices[1].memory_bytes, 0) << "not known before its worker tells";
  config.workers = {"host-b/cpu:0"};
  EXPECT_EQ(LocalThreads(config, two), 8) << "of none";
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
