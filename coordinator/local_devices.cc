#include "coordinator/local_devices.h"

#include <algorithm>
#include <cstddef>

#include "base/cpu_topology.h"

namespace dovetail::coordinator {

int LocalThreads(const ServeConfig& config) {
  if (config.threads > 0) return config.threads;
  const size_t cores = UsableCpus(ReadCpuTopology(), -1).size();
  return std::max<int>(1, static_cast<int>(cores / config.workers.size()));
}

std::vector<std::vector<int>> LocalCpus(const ServeConfig& config, const std::vector<int>& usable) {
  std::vector<std::vector<int>> cpus(config.workers.size());
  const auto threads = static_cast<size_t>(LocalThreads(config));
  if (!config.own_cores || threads * cpus.size() > usable.size()) return cpus;
  for (size_t i = 0; i < cpus.size(); ++i) {
    const auto first = usable.begin() + static_cast<std::ptrdiff_t>(i * threads);
    cpus[i].assign(first, first + static_cast<std::ptrdiff_t>(threads));
  }
  return cpus;
}

std::vector<DeviceInfo> LocalDevices(const ServeConfig& config) {
  const auto available = static_cast<int64_t>(ReadMemoryInfo().available_bytes);
  std::vector<DeviceInfo> devices;
  for (const std::string& name : config.workers) {
    DeviceInfo& device = devices.emplace_back();
    device.name = name;
    device.num_threads = LocalThreads(config);
    const auto types = SupportedWeightTypes();
    device.weight_types.assign(types.begin(), types.end());
    const auto budget = config.memory.find(name);
    if (budget != config.memory.end()) {
      device.memory_bytes = budget->second;
    } else {
      device.memory_bytes = available;
      device.memory_pool = "this machine";
    }
  }
  return devices;
}

}  // namespace dovetail::coordinator
