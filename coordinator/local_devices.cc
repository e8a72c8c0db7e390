#include "coordinator/local_devices.h"

#include <algorithm>
#include <cstddef>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/route.h"

namespace dovetail::coordinator {

PackedLayout LocalLayout(const ModelSettings& settings) {
  return settings.weights == "in_place" ? PackedLayout::kInPlace : PackedLayout::kP16;
}

std::map<std::string, int> LocalNodes(const ModelSettings& settings, const CpuTopology& topology) {
  if (!settings.numa_auto) return settings.numa;
  std::vector<int> nodes;
  for (const NumaNode& node : topology.nodes) {
    if (!UsableCpus(topology, node.id).empty()) nodes.push_back(node.id);
  }
  std::vector<std::string> workers;
  for (const std::string& name : settings.LocalWorkers()) {
    if (KindOf(name).value_or(DeviceKind::kCpu) == DeviceKind::kCpu) workers.push_back(name);
  }
  std::map<std::string, int> bound;
  if (nodes.size() < 2 || nodes.size() != workers.size()) return bound;
  for (size_t i = 0; i < nodes.size(); ++i) bound[workers[i]] = nodes[i];
  return bound;
}

absl::Status CheckLocalNodes(const ModelSettings& settings, const CpuTopology& topology) {
  for (const auto& [worker, node] : LocalNodes(settings, topology)) {
    if (!UsableCpus(topology, node).empty()) continue;
    std::vector<int> nodes;
    for (const NumaNode& n : topology.nodes) nodes.push_back(n.id);
    return absl::InvalidArgumentError(absl::StrCat(
        "`numa` binds ", worker, " to node ", node,
        ", which has no processor for it; this machine's nodes: ", absl::StrJoin(nodes, ", ")));
  }
  return absl::OkStatus();
}

int LocalThreads(const ModelSettings& settings, const CpuTopology& topology) {
  if (settings.threads > 0) return settings.threads;
  size_t threads =
      UsableCpus(topology, -1).size() / std::max<size_t>(1, settings.LocalWorkers().size());
  std::map<int, size_t> sharers;
  for (const auto& [worker, node] : LocalNodes(settings, topology)) ++sharers[node];
  for (const auto& [node, count] : sharers) {
    threads = std::min(threads, UsableCpus(topology, node).size() / count);
  }
  return std::max<int>(1, static_cast<int>(threads));
}

std::vector<std::vector<int>> LocalCpus(const ModelSettings& settings,
                                        const CpuTopology& topology) {
  const std::vector<std::string> workers = settings.LocalWorkers();
  std::vector<std::vector<int>> cpus(workers.size());
  if (!settings.own_cores) return cpus;
  const auto threads = static_cast<size_t>(LocalThreads(settings, topology));
  const std::map<std::string, int> nodes = LocalNodes(settings, topology);
  std::set<int> taken;
  for (size_t i = 0; i < cpus.size(); ++i) {
    const auto node = nodes.find(workers[i]);
    for (int cpu : UsableCpus(topology, node == nodes.end() ? -1 : node->second)) {
      if (cpus[i].size() < threads && taken.insert(cpu).second) cpus[i].push_back(cpu);
    }
    if (cpus[i].size() < threads) return std::vector<std::vector<int>>(workers.size());
  }
  return cpus;
}

std::vector<DeviceInfo> LocalDevices(const ModelSettings& settings, const CpuTopology& topology) {
  const std::map<std::string, int> nodes = LocalNodes(settings, topology);
  std::vector<DeviceInfo> devices;
  for (const std::string& name : settings.workers) {
    DeviceInfo& device = devices.emplace_back();
    device.name = name;
    device.num_threads = LocalThreads(settings, topology);
    if (const auto node = nodes.find(name); node != nodes.end()) device.numa_node = node->second;
    device.kind = KindOf(name).value_or(DeviceKind::kCpu);
    device.layout = device.has_gpu_kernels() ? PackedLayout::kP16Device : LocalLayout(settings);
    const auto types = SupportedWeightTypes();
    device.weight_types.assign(types.begin(), types.end());
    const auto budget = settings.memory.find(name);
    if (budget != settings.memory.end()) {
      device.memory_bytes = budget->second;
    } else if (device.kind != DeviceKind::kCuda && HostOf(name).empty()) {
      // The memory of others their workers will tell.
      device.memory_bytes = static_cast<int64_t>(ReadNodeMemory(device.numa_node).available_bytes);
      device.memory_pool =
          device.numa_node < 0 ? "this machine" : absl::StrCat("NUMA node ", device.numa_node);
    }
  }
  return devices;
}

}  // namespace dovetail::coordinator
