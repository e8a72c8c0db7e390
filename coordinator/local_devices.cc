#include "coordinator/local_devices.h"

#include <algorithm>
#include <cstddef>

#include "base/cpu_topology.h"

namespace dovetail::coordinator {

PackedLayout LocalLayout(const ModelSettings& settings) {
  return settings.weights == "in_place" ? PackedLayout::kInPlace : PackedLayout::kP16;
}

int LocalThreads(const ModelSettings& settings) {
  if (settings.threads > 0) return settings.threads;
  const size_t cores = UsableCpus(ReadCpuTopology(), -1).size();
  return std::max<int>(1, static_cast<int>(cores / settings.workers.size()));
}

std::vector<std::vector<int>> LocalCpus(const ModelSettings& settings,
                                        const std::vector<int>& usable) {
  std::vector<std::vector<int>> cpus(settings.workers.size());
  const auto threads = static_cast<size_t>(LocalThreads(settings));
  if (!settings.own_cores || threads * cpus.size() > usable.size()) return cpus;
  for (size_t i = 0; i < cpus.size(); ++i) {
    const auto first = usable.begin() + static_cast<std::ptrdiff_t>(i * threads);
    cpus[i].assign(first, first + static_cast<std::ptrdiff_t>(threads));
  }
  return cpus;
}

std::vector<DeviceInfo> LocalDevices(const ModelSettings& settings) {
  const auto available = static_cast<int64_t>(ReadMemoryInfo().available_bytes);
  std::vector<DeviceInfo> devices;
  for (const std::string& name : settings.workers) {
    DeviceInfo& device = devices.emplace_back();
    device.name = name;
    device.num_threads = LocalThreads(settings);
    device.kind = KindOf(name).value_or(DeviceKind::kCpu);
    device.layout = device.has_gpu_kernels() ? PackedLayout::kP16Device : LocalLayout(settings);
    const auto types = SupportedWeightTypes();
    device.weight_types.assign(types.begin(), types.end());
    const auto budget = settings.memory.find(name);
    if (budget != settings.memory.end()) {
      device.memory_bytes = budget->second;
    } else if (device.kind != DeviceKind::kCuda) {  // whose memory its worker will tell
      device.memory_bytes = available;
      device.memory_pool = "this machine";
    }
  }
  return devices;
}

}  // namespace dovetail::coordinator
