#include "base/cpu_topology.h"

#include <numa.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace dovetail {
namespace {

constexpr int kMaxCpu = 1 << 16;  // longer lists are not believed

std::optional<std::string> ReadText(const std::string& path) {
  std::ifstream in(path);
  if (!in.good()) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

std::vector<int> ReadCpuList(const std::string& path) {
  const std::optional<std::string> text = ReadText(path);
  if (!text) return {};
  auto cpus = ParseCpuList(absl::StripAsciiWhitespace(*text));
  return cpus.ok() ? *std::move(cpus) : std::vector<int>();
}

// The value of "key: 123 kB" or "key 123" lines.
std::optional<uint64_t> FindNumber(const std::string& text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, key)) continue;
    std::vector<absl::string_view> words =
        absl::StrSplit(line.substr(key.size()), absl::ByAnyChar(": \t"), absl::SkipEmpty());
    uint64_t value = 0;
    if (!words.empty() && absl::SimpleAtoi(words[0], &value)) return value;
  }
  return std::nullopt;
}

std::optional<uint64_t> ReadNumber(const std::string& path) {
  const std::optional<std::string> text = ReadText(path);
  uint64_t value = 0;
  // "max" in cgroup v2 files is no limit, and no number.
  if (!text || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &value)) return std::nullopt;
  return value;
}

// The directories of this process's cgroup and all its ancestors, innermost first. In a container
// the path in /proc/self/cgroup may not exist under /sys/fs/cgroup; its root is tried in any case.
std::vector<std::string> CgroupDirs(const std::string& root, absl::string_view controller) {
  const std::string mount =
      absl::StrCat(root, "/sys/fs/cgroup", controller.empty() ? "" : "/", controller);
  std::string path;
  const std::string text = ReadText(root + "/proc/self/cgroup").value_or("");
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<absl::string_view> names = absl::StrSplit(fields[1], ',');
    const bool mine = controller.empty() ? fields[0] == "0"
                                         : std::count(names.begin(), names.end(), controller) > 0;
    if (mine) path = std::string(fields[2]);
  }
  std::vector<std::string> dirs;
  while (path.size() > 1) {
    dirs.push_back(mount + path);
    path.resize(path.rfind('/'));
  }
  dirs.push_back(mount);
  return dirs;
}

double ReadCpuQuota(const std::string& root) {
  double quota = 0;
  auto limit = [&quota](double value) { quota = quota == 0 ? value : std::min(quota, value); };
  for (const std::string& dir : CgroupDirs(root, "")) {
    const std::string text = ReadText(dir + "/cpu.max").value_or("");
    const std::vector<absl::string_view> words =
        absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
    double time = 0, period = 0;
    if (words.size() == 2 && absl::SimpleAtod(words[0], &time) &&
        absl::SimpleAtod(words[1], &period) && time > 0 && period > 0) {
      limit(time / period);
    }
  }
  for (const std::string& dir : CgroupDirs(root, "cpu")) {
    const auto time = ReadNumber(dir + "/cpu.cfs_quota_us");  // -1, no number here, is no limit
    const auto period = ReadNumber(dir + "/cpu.cfs_period_us");
    if (time && period && *period > 0) limit(static_cast<double>(*time) / *period);
  }
  return quota;
}

std::vector<int> ReadAffinity(const std::string& root, const std::vector<int>& online) {
  // A test's tree says in a file what sched_getaffinity says on a machine.
  if (root != "/") {
    std::vector<int> cpus = ReadCpuList(root + "/affinity");
    return cpus.empty() ? online : cpus;
  }
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return online;
  for (int cpu : online) {
    if (cpu < CPU_SETSIZE && CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// Shrinks `memory` to one cgroup's limit. `usage` counts the page cache, of which the inactive part
// can go.
void ApplyMemoryLimit(std::optional<uint64_t> limit, std::optional<uint64_t> usage,
                      uint64_t reclaimable, MemoryInfo* memory) {
  if (!limit || *limit >= memory->total_bytes) return;
  memory->total_bytes = *limit;
  const uint64_t used = usage.value_or(0) - std::min(usage.value_or(0), reclaimable);
  memory->available_bytes =
      std::min(memory->available_bytes, *limit - std::min<uint64_t>(*limit, used));
}

}  // namespace

absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view list) {
  std::set<int> cpus;
  for (absl::string_view part : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    const std::vector<absl::string_view> ends = absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0, last = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) || !absl::SimpleAtoi(ends.back(), &last) ||
        first < 0 || last < first || last >= kMaxCpu) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" in the processor list \"",
                                                     list, "\": expected N or N-M, as in 0-3,8"));
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.insert(cpu);
  }
  if (cpus.empty()) return absl::InvalidArgumentError("the processor list is empty");
  return std::vector<int>(cpus.begin(), cpus.end());
}

CpuTopology ReadCpuTopology(const std::string& root) {
  const std::string sys = root + "/sys/devices/system";
  CpuTopology topology;
  topology.online_cpus = ReadCpuList(sys + "/cpu/online");
  if (topology.online_cpus.empty()) {
    const long count = std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
    for (int cpu = 0; cpu < count; ++cpu) topology.online_cpus.push_back(cpu);
  }
  for (int cpu : topology.online_cpus) {
    const std::vector<int> siblings =
        ReadCpuList(absl::StrCat(sys, "/cpu/cpu", cpu, "/topology/thread_siblings_list"));
    topology.core_of.push_back(siblings.empty() ? cpu : siblings.front());
  }
  for (int node : ReadCpuList(sys + "/node/online")) {
    std::vector<int> cpus = ReadCpuList(absl::StrCat(sys, "/node/node", node, "/cpulist"));
    if (!cpus.empty()) topology.nodes.push_back({node, std::move(cpus)});
  }
  if (topology.nodes.empty()) topology.nodes.push_back({0, topology.online_cpus});
  topology.allowed_cpus = ReadAffinity(root, topology.online_cpus);
  topology.cpu_quota = ReadCpuQuota(root);
  return topology;
}

std::vector<int> UsableCpus(const CpuTopology& topology, int node) {
  std::set<int> cores;
  std::vector<int> cpus;
  for (size_t i = 0; i < topology.online_cpus.size(); ++i) {
    const int cpu = topology.online_cpus[i];
    bool in_node = node < 0;
    for (const NumaNode& n : topology.nodes) {
      in_node |= n.id == node && std::count(n.cpus.begin(), n.cpus.end(), cpu) > 0;
    }
    const auto& allowed = topology.allowed_cpus;
    if (!in_node || std::count(allowed.begin(), allowed.end(), cpu) == 0) continue;
    if (cores.insert(topology.core_of[i]).second) cpus.push_back(cpu);
  }
  if (topology.cpu_quota > 0) {
    const size_t paid = std::max<size_t>(1, std::lround(topology.cpu_quota));
    if (cpus.size() > paid) cpus.resize(paid);
  }
  return cpus;
}

MemoryInfo ReadMemoryInfo(const std::string& root) {
  const std::string meminfo = ReadText(root + "/proc/meminfo").value_or("");
  MemoryInfo memory;
  memory.total_bytes = FindNumber(meminfo, "MemTotal").value_or(0) * 1024;
  memory.available_bytes = FindNumber(meminfo, "MemAvailable").value_or(0) * 1024;
  for (const std::string& dir : CgroupDirs(root, "")) {
    const std::string stat = ReadText(dir + "/memory.stat").value_or("");
    ApplyMemoryLimit(ReadNumber(dir + "/memory.max"), ReadNumber(dir + "/memory.current"),
                     FindNumber(stat, "inactive_file").value_or(0), &memory);
  }
  for (const std::string& dir : CgroupDirs(root, "memory")) {
    const std::string stat = ReadText(dir + "/memory.stat").value_or("");
    ApplyMemoryLimit(ReadNumber(dir + "/memory.limit_in_bytes"),
                     ReadNumber(dir + "/memory.usage_in_bytes"),
                     FindNumber(stat, "total_inactive_file").value_or(0), &memory);
  }
  return memory;
}

MemoryInfo ReadNodeMemory(int node, const std::string& root) {
  MemoryInfo memory = ReadMemoryInfo(root);
  if (node < 0) return memory;
  const std::string prefix = absl::StrCat("Node ", node, " ");
  const std::string text =
      ReadText(absl::StrCat(root, "/sys/devices/system/node/node", node, "/meminfo")).value_or("");
  const auto bytes = [&](absl::string_view key) {
    return FindNumber(text, absl::StrCat(prefix, key, ":")).value_or(0) * 1024;
  };
  if (const uint64_t total = bytes("MemTotal"); total > 0) {
    memory.total_bytes = std::min(memory.total_bytes, total);
    memory.available_bytes =
        std::min(memory.available_bytes, bytes("MemFree") + bytes("Inactive(file)"));
  }
  return memory;
}

absl::Status BindMemoryToNode(int node) {
  if (numa_available() < 0) {
    return absl::FailedPreconditionError("this kernel has no NUMA support");
  }
  if (node < 0 || node > numa_max_node() || !numa_bitmask_isbitset(numa_all_nodes_ptr, node)) {
    return absl::InvalidArgumentError(
        absl::StrCat("NUMA node ", node, " is not one of this machine's, 0 to ", numa_max_node()));
  }
  bitmask* nodes = numa_allocate_nodemask();
  numa_bitmask_setbit(nodes, node);
  numa_set_membind(nodes);
  numa_free_nodemask(nodes);
  return absl::OkStatus();
}

}  // namespace dovetail
