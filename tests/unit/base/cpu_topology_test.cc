#include "base/cpu_topology.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace dovetail {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A machine of 8 processors on 4 cores and 2 nodes, as a tree of files.
class CpuTopologyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/dovetail-topology-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    root_ = path;
    Write("sys/devices/system/cpu/online", "0-7\n");
    for (int cpu = 0; cpu < 8; ++cpu) {
      const int core = cpu % 4;
      Write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
            std::to_string(core) + "," + std::to_string(core + 4) + "\n");
    }
    Write("sys/devices/system/node/online", "0-2\n");
    Write("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
    Write("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
    Write("sys/devices/system/node/node2/cpulist", "\n");  // memory only
    Write("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\n");
    Write("proc/self/cgroup", "0::/a/b\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& relative, const std::string& text) {
    const std::filesystem::path path = std::filesystem::path(root_) / relative;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

  std::string root_;
};

TEST(ParseCpuList, AcceptsTheKernelsFormat) {
  EXPECT_THAT(*ParseCpuList("0-3,8"), ElementsAre(0, 1, 2, 3, 8));
  EXPECT_THAT(*ParseCpuList("5"), ElementsAre(5));
}

TEST(ParseCpuList, NamesTheBadPart) {
  for (const char* bad : {"0-x", "3-1", "-1", "1-99999999", "0,,a"}) {
    EXPECT_THAT(ParseCpuList(bad),
                testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0-3,8")))
        << bad;
  }
  EXPECT_THAT(ParseCpuList(""),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
}

TEST_F(CpuTopologyTest, OneProcessorPerCore) {
  const CpuTopology topology = ReadCpuTopology(root_);
  EXPECT_EQ(topology.online_cpus.size(), 8u);
  EXPECT_EQ(topology.nodes.size(), 2u);  // the one without processors is left out
  EXPECT_EQ(topology.cpu_quota, 0);
  EXPECT_THAT(UsableCpus(topology, -1), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(UsableCpus(topology, 1), ElementsAre(2, 3));
  EXPECT_THAT(UsableCpus(topology, 5), IsEmpty());
}

TEST_F(CpuTopologyTest, AffinityAndQuotaLimit) {
  Write("affinity", "1,5-7");
  EXPECT_THAT(UsableCpus(ReadCpuTopology(root_), -1), ElementsAre(1, 6, 7));
  Write("sys/fs/cgroup/a/cpu.max", "200000 100000\n");
  Write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(ReadCpuTopology(root_).cpu_quota, 2.0);
  EXPECT_THAT(UsableCpus(ReadCpuTopology(root_), -1), ElementsAre(1, 6));
}

TEST_F(CpuTopologyTest, MemoryWithoutLimit) {
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  const MemoryInfo memory = ReadMemoryInfo(root_);
  EXPECT_EQ(memory.total_bytes, 1000u * 1024);
  EXPECT_EQ(memory.available_bytes, 600u * 1024);
}

TEST_F(CpuTopologyTest, MemoryLimitOfAnAncestor) {
  Write("sys/fs/cgroup/a/memory.max", "512000\n");
  Write("sys/fs/cgroup/a/memory.current", "112000\n");
  Write("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 12000\n");
  const MemoryInfo memory = ReadMemoryInfo(root_);
  EXPECT_EQ(memory.total_bytes, 512000u);
  EXPECT_EQ(memory.available_bytes, 412000u);
}

TEST_F(CpuTopologyTest, MemoryLimitOfCgroupVersion1) {
  Write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n");
  Write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "300000\n");
  Write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "400000\n");
  const MemoryInfo memory = ReadMemoryInfo(root_);
  EXPECT_EQ(memory.total_bytes, 300000u);
  EXPECT_EQ(memory.available_bytes, 0u);
}

TEST_F(CpuTopologyTest, MemoryOfANode) {
  Write("sys/devices/system/node/node1/meminfo",
        "Node 1 MemTotal:         500 kB\nNode 1 MemFree:          200 kB\n"
        "Node 1 Active(file):     150 kB\nNode 1 Inactive(file):    50 kB\n");
  EXPECT_EQ(ReadNodeMemory(1, root_).total_bytes, 500u * 1024);
  EXPECT_EQ(ReadNodeMemory(1, root_).available_bytes, 250u * 1024);
  for (int other : {-1, 7}) {  // of the machine, and of a node that the kernel says nothing about
    EXPECT_EQ(ReadNodeMemory(other, root_).available_bytes, 600u * 1024) << other;
  }
  Write("sys/fs/cgroup/a/memory.max", "100000\n");
  Write("sys/fs/cgroup/a/memory.current", "90000\n");
  EXPECT_EQ(ReadNodeMemory(1, root_).available_bytes, 10000u) << "the limit is below the node's";
}

TEST(ReadCpuTopology, ThisMachine) {
  const CpuTopology topology = ReadCpuTopology();
  EXPECT_FALSE(topology.online_cpus.empty());
  EXPECT_FALSE(UsableCpus(topology, -1).empty());
  const MemoryInfo memory = ReadMemoryInfo();
  EXPECT_GT(memory.total_bytes, memory.available_bytes);
}

TEST(BindMemoryToNode, RefusesWhatIsNotThere) {
  const absl::Status status = BindMemoryToNode(4000);
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace dovetail
