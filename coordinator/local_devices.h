// LocalDevices: the devices of this machine, as its workers would register them.
#ifndef DOVETAIL_COORDINATOR_LOCAL_DEVICES_H_
#define DOVETAIL_COORDINATOR_LOCAL_DEVICES_H_

#include <vector>

#include "coordinator/config.h"
#include "coordinator/placement/device_info.h"

namespace dovetail::coordinator {

// Threads of each local worker: as configured, or the machine's cores divided among them.
int LocalThreads(const ModelSettings& settings);

// How CPU workers of this machine keep their weights.
PackedLayout LocalLayout(const ModelSettings& settings);

// With ModelSettings::own_cores, the processors for the threads of each local worker, none for two
// of them; otherwise, or where there are fewer than threads, empty lists.
std::vector<std::vector<int>> LocalCpus(const ModelSettings& settings,
                                        const std::vector<int>& usable);

// One for each configured worker; without budgets they share what the machine has available.
std::vector<DeviceInfo> LocalDevices(const ModelSettings& settings);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_LOCAL_DEVICES_H_
