#include "coordinator/placement/step_time.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/algorithm/container.h"
#include "model/memory_plan.h"
#include "transport/remote_edges.h"

namespace dovetail::coordinator {
namespace {

// A hop: shared memory and a wake-up, or a transfer over PCIe 4.0 x16.
constexpr double kHopSeconds = 5e-6;
constexpr double kHostBandwidth = 10e9;
constexpr double kGatherSeconds = 2e-6;  // the others are on their way, and nobody sleeps
// To another host, by TCP: 10 GbE and the threads that carry it.
constexpr double kNetworkSeconds = 60e-6;
constexpr double kNetworkBandwidth = 1.1e9;

// Multiplications and additions for one row.
double OpsPerRow(const model::ModelConfig& config, const PlacedModule& module) {
  const Op& op = module.op;
  double elements = 0;
  for (const model::WeightSpec& spec : model::WeightsOf(config, op)) {
    if (spec.is_vector) continue;
    const double matrix = static_cast<double>(spec.rows) * static_cast<double>(spec.cols);
    const double used = op.kind != OpKind::kExperts
                            ? static_cast<double>(std::max<int64_t>(1, spec.experts))
                            : static_cast<double>(config.experts.num_used) *
                                  (op.expert_end - op.expert_begin) / config.experts.count;
    elements += matrix * used;
  }
  return module.op.kind == OpKind::kEmbedding ? 0 : 2 * elements;
}

// The part of a module that a member has, by its share.
double ShareOf(const PlacedModule& module, size_t member) {
  double all = 0;
  for (const Member& m : module.members) all += m.share;
  return module.members.empty() ? 1.0 : module.members[member].share / all;
}

bool IsGpu(const Plan& plan, const std::string& name) {
  for (const PlacedWorker& worker : plan.workers) {
    if (worker.device.name == name) return worker.device.kind == DeviceKind::kCuda;
  }
  return false;
}

// Whether a step does not wait for module `i`: experts of a GPU worker, with which it is busy while
// the step is with the CPU worker that has others of the layer.
bool IsBesideTheStep(const Plan& plan, size_t i) {
  const PlacedModule& module = plan.modules[i];
  const OpKind kind = module.op.kind;
  const bool experts = kind == OpKind::kSharedExperts || kind == OpKind::kExperts;
  if (!experts || !module.members.empty() || !IsGpu(plan, module.device)) return false;
  size_t next = i + 1;
  while (next < plan.modules.size() && plan.modules[next].device == module.device) ++next;
  if (next == plan.modules.size()) return false;
  const PlacedModule& elsewhere = plan.modules[next];
  return IsExpertPart(elsewhere.op.kind) && elsewhere.op.layer == module.op.layer &&
         !IsGpu(plan, elsewhere.device);
}

const DeviceSpeed& SpeedOf(absl::Span<const DeviceSpeed> speeds, const std::string& name) {
  return *absl::c_find_if(speeds, [&](const DeviceSpeed& s) { return s.name == name; });
}

// What a module's device, or all its members together, read and multiply in a step.
struct ModuleWork {
  double bytes = 0;
  double ops = 0;

  double SecondsOn(const DeviceSpeed& speed) const {
    return std::max(bytes / speed.bandwidth, ops / speed.int8_ops);
  }
};

// The head works on the rows whose logits are wanted: one of each sequence.
bool IsHead(const Op& op) { return op.kind == OpKind::kLmHead || op.kind == OpKind::kNorm; }

ModuleWork WorkOf(const model::ModelConfig& config, const Plan& plan, const PlacedModule& module,
                  int64_t rows, int64_t sequences) {
  const int64_t own_rows = IsHead(module.op) ? sequences : rows;
  ModuleWork work = {.bytes = BytesRead(config, module, own_rows),
                     .ops = OpsPerRow(config, module) * static_cast<double>(own_rows)};
  if (module.op.kind == OpKind::kAttention) {
    work.bytes += static_cast<double>(model::KvBytesPerBlockPerLayer(config, plan.shape.kv_type)) /
                  kKvBlockTokens * static_cast<double>(kPredictedContext * sequences);
  }
  return work;
}

// Of the device, or of the member, that takes longest; what each takes is added to `busy`, if any.
double LongestSeconds(const PlacedModule& module, const ModuleWork& work,
                      absl::Span<const DeviceSpeed> speeds, std::map<std::string, double>* busy) {
  const std::vector<std::string> devices = DevicesOf(module);
  double longest = 0;
  for (size_t i = 0; i < devices.size(); ++i) {
    const double seconds = ShareOf(module, i) * work.SecondsOn(SpeedOf(speeds, devices[i]));
    if (busy != nullptr) (*busy)[devices[i]] += seconds;
    longest = std::max(longest, seconds);
  }
  return longest;
}

// How often the members that share an op's rows wait for each other's.
int GathersOf(const Op& op) {
  if (op.kind == OpKind::kLmHead) return 1;
  if (op.kind == OpKind::kRouter) return 0;
  return op.kind == OpKind::kNorm ? 0 : 2;
}

// Of `bytes` from one worker to another; "" is the coordinator.
double HopSeconds(const Plan& plan, const std::string& from, const std::string& to, double bytes) {
  if (transport::IsRemoteEdge(from, to)) {
    return kNetworkSeconds + bytes / kNetworkBandwidth;
  }
  const bool gpu = IsGpu(plan, from) || IsGpu(plan, to);
  return kHopSeconds + bytes / (gpu ? kPcieBandwidth : kHostBandwidth);
}

// Of one gather; what it carries is not counted but between hosts.
double GatherSeconds(const model::ModelConfig& config, const PlacedModule& module, int64_t rows) {
  const bool one_host =
      std::all_of(module.members.begin(), module.members.end(),
                  [](const Member& member) { return HostOf(member.worker).empty(); });
  if (one_host) return kGatherSeconds;
  return kNetworkSeconds + static_cast<double>(HopBytes(config, rows)) / kNetworkBandwidth;
}

// Of a step that goes through `workers`, and the gathers of modules that several share.
double RouteSeconds(const model::ModelConfig& config, const Plan& plan,
                    absl::Span<const std::string> workers, int64_t rows) {
  const auto bytes = static_cast<double>(HopBytes(config, rows));
  double seconds = 0;
  for (size_t i = 1; i < workers.size(); ++i) {
    seconds += HopSeconds(plan, workers[i - 1], workers[i], bytes);
  }
  for (const PlacedModule& module : plan.modules) {
    if (!module.members.empty()) {
      seconds += GathersOf(module.op) * GatherSeconds(config, module, rows);
    }
  }
  // From the coordinator and back.
  return seconds + HopSeconds(plan, "", workers.front(), 0) +
         HopSeconds(plan, workers.back(), "", 0);
}

}  // namespace

double BytesRead(const model::ModelConfig& config, const PlacedModule& module, int64_t rows) {
  if (module.op.kind == OpKind::kEmbedding) {  // wherever its rows are
    return static_cast<double>(module.stored_bytes) / std::max(1, config.vocab_size) *
           static_cast<double>(rows);
  }
  const double bytes = static_cast<double>(module.packed_bytes + module.in_place_bytes);
  if (module.op.kind != OpKind::kExperts) return bytes;
  const double share = static_cast<double>(config.experts.num_used) / config.experts.count;
  return bytes * (1 - std::pow(1 - share, static_cast<double>(rows)));
}

double OpsOfPrompt(const model::ModelConfig& config, const PlacedModule& module) {
  return IsHead(module.op) ? 0 : OpsPerRow(config, module);
}

StepTime TimeStep(const model::ModelConfig& config, const Plan& plan,
                  absl::Span<const DeviceSpeed> speeds, int64_t rows, int64_t sequences) {
  StepTime time;
  double beside = 0;  // what the next module is computed at the same time as
  for (size_t index = 0; index < plan.modules.size(); ++index) {
    const PlacedModule& module = plan.modules[index];
    const ModuleWork work = WorkOf(config, plan, module, rows, sequences);
    const double longest = LongestSeconds(module, work, speeds, &time.busy);
    if (IsBesideTheStep(plan, index)) {
      beside += longest;
      continue;
    }
    time.pass += std::max(longest, beside);
    beside = 0;
  }
  return time;
}

double HopSeconds(const model::ModelConfig& config, const Plan& plan, int64_t rows) {
  std::vector<std::string> workers;
  for (const Segment& segment : plan.route) workers.push_back(segment.worker);
  return RouteSeconds(config, plan, workers, rows);
}

StreamedStep::StreamedStep(const model::ModelConfig& config, const Plan& plan)
    : config_(config), plan_(plan), gpu_of_module_(plan.modules.size()) {
  for (const Segment& segment : plan.route) workers_.push_back(segment.worker);
  for (const PlacedWorker& gpu : plan.workers) {
    if (!gpu.device.has_gpu_kernels()) continue;
    const std::vector<bool> streamed = StreamedSegments(plan.route, gpu.device.name);
    for (size_t i = 0; i < streamed.size(); ++i) {
      if (streamed[i]) Take(plan.route[i], gpu.device.name, i);
    }
  }
  workers_.erase(std::unique(workers_.begin(), workers_.end()), workers_.end());
}

void StreamedStep::Take(const Segment& segment, const std::string& gpu, size_t index) {
  const auto owner = absl::c_find_if(
      plan_.workers, [&](const PlacedWorker& w) { return w.device.name == segment.worker; });
  if (owner->device.layout != PackedLayout::kP16) return;  // which no GPU reads
  workers_[index] = gpu;
  possible_ = true;
  for (size_t m = 0; m < plan_.modules.size(); ++m) {
    if (absl::c_linear_search(segment.ops, plan_.modules[m].op)) gpu_of_module_[m] = gpu;
  }
}

double StreamedStep::Seconds(absl::Span<const DeviceSpeed> speeds, int64_t rows,
                             int64_t sequences) const {
  if (!possible_) return std::numeric_limits<double>::infinity();
  struct Gpu {
    double computes = 0, uploads = 0;
  };
  std::map<std::string, Gpu> gpus;
  for (const std::string& gpu : gpu_of_module_) {
    if (!gpu.empty()) gpus[gpu] = {};
  }
  double seconds = RouteSeconds(config_, plan_, workers_, rows);
  for (size_t m = 0; m < plan_.modules.size(); ++m) {
    const PlacedModule& module = plan_.modules[m];
    const ModuleWork work = WorkOf(config_, plan_, module, rows, sequences);
    const std::string& runs = gpu_of_module_[m].empty() ? module.device : gpu_of_module_[m];
    const auto gpu = module.members.empty() ? gpus.find(runs) : gpus.end();
    if (gpu != gpus.end()) {
      const DeviceSpeed& speed = SpeedOf(speeds, runs);
      gpu->second.computes += work.SecondsOn(speed);
      if (runs != module.device) {
        gpu->second.uploads += static_cast<double>(module.packed_bytes) / speed.upload_bandwidth;
      }
      continue;
    }
    seconds += LongestSeconds(module, work, speeds, nullptr);
  }
  for (const auto& [name, gpu] : gpus) seconds += std::max(gpu.computes, gpu.uploads);
  return seconds;
}

}  // namespace dovetail::coordinator
