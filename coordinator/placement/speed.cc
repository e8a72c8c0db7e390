#include "coordinator/placement/speed.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "model/memory_plan.h"

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
constexpr double kPcieBandwidth = 20e9;

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

// Seconds that one step of `rows` rows takes on the devices of the plan, by device.
std::map<std::string, double> StepSeconds(const model::ModelConfig& config, const Plan& plan,
                                          const std::vector<DeviceSpeed>& speeds, int64_t rows,
                                          int64_t sequences) {
  std::map<std::string, double> seconds;
  const double kv_bytes =
      static_cast<double>(model::KvBytesPerBlockPerLayer(config, plan.shape.kv_type)) /
      kKvBlockTokens * static_cast<double>(kContext * sequences);
  for (const PlacedModule& module : plan.modules) {
    const auto speed = std::find_if(speeds.begin(), speeds.end(),
                                    [&](const auto& s) { return s.name == module.device; });
    // The head works on the rows whose logits are wanted: one of each sequence.
    const bool is_head = module.op.kind == OpKind::kLmHead || module.op.kind == OpKind::kNorm;
    const int64_t own_rows = is_head ? sequences : rows;
    double bytes = BytesRead(config, module, own_rows);
    if (module.op.kind == OpKind::kAttention) bytes += kv_bytes;
    const double ops = OpsPerRow(config, module) * static_cast<double>(own_rows);
    seconds[module.device] += std::max(bytes / speed->bandwidth, ops / speed->int8_ops);
  }
  return seconds;
}

double HopSeconds(const model::ModelConfig& config, const Plan& plan, int64_t rows) {
  double seconds = 0;
  const auto is_gpu = [&](const std::string& name) {
    for (const PlacedWorker& worker : plan.workers) {
      if (worker.device.name == name) return worker.device.kind == DeviceKind::kCuda;
    }
    return false;
  };
  for (size_t i = 1; i < plan.route.size(); ++i) {
    const bool gpu = is_gpu(plan.route[i - 1].worker) || is_gpu(plan.route[i].worker);
    seconds += kHopSeconds + static_cast<double>(HopBytes(config, rows)) /
                                 (gpu ? kPcieBandwidth : kHostBandwidth);
  }
  return seconds + 2 * kHopSeconds;  // from the coordinator and back
}

double Sum(const std::map<std::string, double>& seconds) {
  double sum = 0;
  for (const auto& [name, value] : seconds) sum += value;
  return sum;
}

double Largest(const std::map<std::string, double>& seconds) {
  double largest = 0;
  for (const auto& [name, value] : seconds) largest = std::max(largest, value);
  return largest;
}

}  // namespace

double BytesRead(const model::ModelConfig& config, const PlacedModule& module, int64_t rows) {
  const double bytes = static_cast<double>(module.packed_bytes);
  if (module.op.kind == OpKind::kEmbedding) {
    return bytes / std::max(1, config.vocab_size) * static_cast<double>(rows);
  }
  if (module.op.kind != OpKind::kExperts) return bytes;
  const double share = static_cast<double>(config.experts.num_used) / config.experts.count;
  return bytes * (1 - std::pow(1 - share, static_cast<double>(rows)));
}

PlanSpeed PredictSpeed(const model::ModelConfig& config, const Plan& plan) {
  PlanSpeed speed;
  speed.context = kContext;
  for (const PlacedWorker& worker : plan.workers) speed.devices.push_back(SpeedOf(worker.device));
  const std::map<std::string, double> one = StepSeconds(config, plan, speed.devices, 1, 1);
  for (DeviceSpeed& device : speed.devices) {
    const auto own = one.find(device.name);
    if (own != one.end()) device.decode_seconds = own->second;
  }
  speed.hop_seconds = HopSeconds(config, plan, 1);
  speed.decode_tokens_per_s = 1 / (Sum(one) + speed.hop_seconds);

  // With as many steps in flight as there are devices, the slowest device sets the pace. Each step
  // carries its share of the sequences.
  const int64_t batch = plan.shape.max_sequences;
  double best = 0;
  for (int64_t lanes = 1; lanes <= std::min<int64_t>(batch, 2 * plan.workers.size()); ++lanes) {
    const int64_t rows = (batch + lanes - 1) / lanes;
    const std::map<std::string, double> step = StepSeconds(config, plan, speed.devices, rows, rows);
    const double cycle = std::max(static_cast<double>(lanes) * Largest(step),
                                  Sum(step) + HopSeconds(config, plan, rows));
    best = std::max(best, static_cast<double>(batch) / cycle);
  }
  speed.batched_decode_tokens_per_s = best;

  const int64_t chunk = plan.shape.max_rows - plan.shape.max_sequences;
  const std::map<std::string, double> prefill = StepSeconds(config, plan, speed.devices, chunk, 1);
  speed.prefill_tokens_per_s =
      static_cast<double>(chunk) / (Sum(prefill) + HopSeconds(config, plan, chunk));
  return speed;
}

}  // namespace dovetail::coordinator
