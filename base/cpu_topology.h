// What the machine is, as far as a process may use it: processors, NUMA nodes, memory.
//
// Read from /proc and /sys, with the limits of affinity and of cgroups (v2 and v1) taken into
// account, so that a container is not mistaken for its host. Pure readers except BindMemoryToNode;
// thread-safe.
#ifndef DOVETAIL_BASE_CPU_TOPOLOGY_H_
#define DOVETAIL_BASE_CPU_TOPOLOGY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dovetail {

// "0-3,8" -> {0, 1, 2, 3, 8}: the kernel's list format. InvalidArgument names the part.
absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view list);

struct NumaNode {
  int id = 0;
  std::vector<int> cpus;
};

struct CpuTopology {
  std::vector<int> online_cpus;
  std::vector<int> core_of;     // parallel to online_cpus: the lowest cpu of the same physical core
  std::vector<NumaNode> nodes;  // with at least one processor, ascending
  std::vector<int> allowed_cpus;  // this process's affinity, a subset of online_cpus
  double cpu_quota = 0;           // processors' worth of time that the cgroup grants; 0: no limit
};

// `root` is "/" but in tests, which bring their own tree.
CpuTopology ReadCpuTopology(const std::string& root = "/");

// The processors for a worker: those of `node` (-1: of all nodes) that the affinity allows, one per
// physical core, not more than the quota pays for. Empty when nothing is left.
std::vector<int> UsableCpus(const CpuTopology& topology, int node);

struct MemoryInfo {
  uint64_t total_bytes = 0;      // the machine's, or the smallest cgroup limit above this process
  uint64_t available_bytes = 0;  // what can be used now without pushing anyone out
};

MemoryInfo ReadMemoryInfo(const std::string& root = "/");
// The same for a process whose memory comes from one NUMA node: at most what that has. -1: of all.
MemoryInfo ReadNodeMemory(int node, const std::string& root = "/");

// Memory that this thread, and threads it starts later, touches first comes from `node`.
absl::Status BindMemoryToNode(int node);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_CPU_TOPOLOGY_H_
