#include "coordinator/placement/speed.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "model/memory_plan.h"
#include "transport/remote_edges.h"

namespace dovetail::coordinator {
namespace {

constexpr int64_t kContext = 1024;  // tokens before the one whose cost is predicted
// What is assumed where nothing was measured or given: a desktop's memory and cores, a small GPU.
constexpr double kCpuBandwidth = 40e9;
constexpr double kCpuOpsPerThread = 100e9;
constexpr double kGpuBandwidth = 300e9;
constexpr double kGpuOps = 50e12;
// A hop: shared memory and a wake-up, or a transfer over PCIe 4.0 x16.
constexpr double kHopSeconds = 5e-6;
constexpr double kHostBandwidth = 10e9;
constexpr double kGatherSeconds = 2e-6;  // the others are on their way, and nobody sleeps
constexpr double kPcieBandwidth = 20e9;
// To another host, by TCP: 10 GbE and the threads that carry it.
constexpr double kNetworkSeconds = 60e-6;
constexpr double kNetworkBandwidth = 1.1e9;

DeviceSpeed SpeedOf(const DeviceInfo& device) {
  DeviceSpeed speed;
  const bool gpu = device.kind == DeviceKind::kCuda;
  speed.name = device.name;
  speed.bandwidth = device.bandwidth;
  speed.int8_ops = device.int8_ops;
  if (speed.bandwidth <= 0) {
    speed.bandwidth = gpu ? kGpuBandwidth : kCpuBandwidth;
    speed.bandwidth_basis = Basis::kAssumed;
  }
  if (speed.int8_ops <= 0) {
    speed.int8_ops = gpu ? kGpuOps : kCpuOpsPerThread * device.num_threads;
    speed.ops_basis = Basis::kAssumed;
  }
  return speed;
}

// Multiplications and additions for one row; a stored byte holds about two weights of 4 bits.
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

// How long one step takes.
struct StepTime {
  std::map<std::string, double> busy;  // by device
  // Of one step alone: devices that share rows, or the experts of a layer, work at once.
  double pass = 0;
};

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

// Of one step of `rows` rows on the devices of the plan.
StepTime TimeStep(const model::ModelConfig& config, const Plan& plan,
                  const std::vector<DeviceSpeed>& speeds, int64_t rows, int64_t sequences) {
  StepTime time;
  const double kv_bytes =
      static_cast<double>(model::KvBytesPerBlockPerLayer(config, plan.shape.kv_type)) /
      kKvBlockTokens * static_cast<double>(kContext * sequences);
  double beside = 0;  // what the next module is computed at the same time as
  for (size_t index = 0; index < plan.modules.size(); ++index) {
    const PlacedModule& module = plan.modules[index];
    // The head works on the rows whose logits are wanted: one of each sequence.
    const bool is_head = module.op.kind == OpKind::kLmHead || module.op.kind == OpKind::kNorm;
    const int64_t own_rows = is_head ? sequences : rows;
    double bytes = BytesRead(config, module, own_rows);
    if (module.op.kind == OpKind::kAttention) bytes += kv_bytes;
    const double ops = OpsPerRow(config, module) * static_cast<double>(own_rows);
    const std::vector<std::string> devices = DevicesOf(module);
    double longest = 0;
    for (size_t i = 0; i < devices.size(); ++i) {
      const auto speed = std::find_if(speeds.begin(), speeds.end(),
                                      [&](const auto& s) { return s.name == devices[i]; });
      const double seconds =
          ShareOf(module, i) * std::max(bytes / speed->bandwidth, ops / speed->int8_ops);
      time.busy[devices[i]] += seconds;
      longest = std::max(longest, seconds);
    }
    if (IsBesideTheStep(plan, index)) {
      beside += longest;
      continue;
    }
    time.pass += std::max(longest, beside);
    beside = 0;
  }
  return time;
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

double HopSeconds(const model::ModelConfig& config, const Plan& plan, int64_t rows) {
  const auto bytes = static_cast<double>(HopBytes(config, rows));
  double seconds = 0;
  for (size_t i = 1; i < plan.route.size(); ++i) {
    seconds += HopSeconds(plan, plan.route[i - 1].worker, plan.route[i].worker, bytes);
  }
  for (const PlacedModule& module : plan.modules) {
    if (!module.members.empty()) {
      seconds += GathersOf(module.op) * GatherSeconds(config, module, rows);
    }
  }
  // From the coordinator and back.
  return seconds + HopSeconds(plan, "", plan.route.front().worker, 0) +
         HopSeconds(plan, plan.route.back().worker, "", 0);
}

double Largest(const std::map<std::string, double>& seconds) {
  double largest = 0;
  for (const auto& [name, value] : seconds) largest = std::max(largest, value);
  return largest;
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

PlanSpeed PredictSpeed(const model::ModelConfig& config, const Plan& plan) {
  PlanSpeed speed;
  speed.context = kContext;
  for (const PlacedWorker& worker : plan.workers) speed.devices.push_back(SpeedOf(worker.device));
  const StepTime one = TimeStep(config, plan, speed.devices, 1, 1);
  for (DeviceSpeed& device : speed.devices) {
    const auto own = one.busy.find(device.name);
    if (own != one.busy.end()) device.decode_seconds = own->second;
  }
  speed.hop_seconds = HopSeconds(config, plan, 1);
  speed.decode_tokens_per_s = 1 / (one.pass + speed.hop_seconds);

  // With as many steps in flight as there are devices, the slowest device sets the pace. Each step
  // carries its share of the sequences.
  const int64_t batch = plan.shape.max_sequences;
  double best = 0;
  for (int64_t lanes = 1; lanes <= std::min<int64_t>(batch, 2 * plan.workers.size()); ++lanes) {
    const int64_t rows = (batch + lanes - 1) / lanes;
    const StepTime step = TimeStep(config, plan, speed.devices, rows, rows);
    const double cycle = std::max(static_cast<double>(lanes) * Largest(step.busy),
                                  step.pass + HopSeconds(config, plan, rows));
    best = std::max(best, static_cast<double>(batch) / cycle);
  }
  speed.batched_decode_tokens_per_s = best;

  const int64_t chunk = plan.shape.max_rows - plan.shape.max_sequences;
  const StepTime prefill = TimeStep(config, plan, speed.devices, chunk, 1);
  speed.prefill_tokens_per_s =
      static_cast<double>(chunk) / (prefill.pass + HopSeconds(config, plan, chunk));
  return speed;
}

}  // namespace dovetail::coordinator
