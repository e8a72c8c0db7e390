// LocalDevices: the devices of this machine, as its workers would register them.
#ifndef DOVETAIL_COORDINATOR_LOCAL_DEVICES_H_
#define DOVETAIL_COORDINATOR_LOCAL_DEVICES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/cpu_topology.h"
#include "coordinator/config.h"
#include "coordinator/placement/device_info.h"

namespace dovetail::coordinator {

// The NUMA nodes that local CPU workers are bound to, by worker; those that are not there are bound
// to none.
std::map<std::string, int> LocalNodes(const ModelSettings& settings, const CpuTopology& topology);
// kInvalidArgument: `numa` names a node that has no processor for this process.
absl::Status CheckLocalNodes(const ModelSettings& settings, const CpuTopology& topology);

// Threads of each local worker: as configured, or the machine's cores divided among them, and not
// more than a node has for each of its workers.
int LocalThreads(const ModelSettings& settings, const CpuTopology& topology);

// How CPU workers of this machine keep their weights.
PackedLayout LocalLayout(const ModelSettings& settings);

// With ModelSettings::own_cores, the processors for the threads of each local worker, those of its
// node and none for two workers; otherwise, or where there are fewer than threads, empty lists.
std::vector<std::vector<int>> LocalCpus(const ModelSettings& settings, const CpuTopology& topology);

// One for each configured worker; without budgets they share what the machine, or their node, has
// available.
std::vector<DeviceInfo> LocalDevices(const ModelSettings& settings,
                                     const CpuTopology& topology = ReadCpuTopology());

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_LOCAL_DEVICES_H_
