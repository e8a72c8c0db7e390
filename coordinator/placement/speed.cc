#include "coordinator/placement/speed.h"

#include <algorithm>
#include <map>
#include <string>

#include "coordinator/stream_choice.h"

namespace dovetail::coordinator {
namespace {

// What is assumed where nothing was measured or given: a desktop's memory and cores, a small GPU.
constexpr double kCpuBandwidth = 40e9;
constexpr double kCpuOpsPerThread = 100e9;
constexpr double kGpuBandwidth = 300e9;
constexpr double kGpuOps = 50e12;

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
  if (device.has_gpu_kernels()) {
    speed.upload_bandwidth = device.upload_bandwidth > 0 ? device.upload_bandwidth : kPcieBandwidth;
    if (device.upload_bandwidth <= 0) speed.upload_basis = Basis::kAssumed;
  }
  return speed;
}

double Largest(const std::map<std::string, double>& seconds) {
  double largest = 0;
  for (const auto& [name, value] : seconds) largest = std::max(largest, value);
  return largest;
}

// Of chunks of `chunk` tokens, and from how many on it is worth it.
void PredictStreaming(const model::ModelConfig& config, const Plan& plan, int64_t chunk,
                      PlanSpeed* speed) {
  const StreamedStep streamed(config, plan);
  if (!streamed.possible()) return;
  speed->streamed_prefill_tokens_per_s =
      static_cast<double>(chunk) / streamed.Seconds(speed->devices, chunk, 1);
  const auto is_worth_it = [&](int64_t rows) {
    const double usual = TimeStep(config, plan, speed->devices, rows, 1).pass;
    return streamed.Seconds(speed->devices, rows, 1) <
           StreamChoice::kWorthIt * (usual + HopSeconds(config, plan, rows));
  };
  if (!is_worth_it(chunk)) return;
  int64_t below = 0, from = chunk;  // what streaming takes grows more slowly than what CPUs take
  while (from - below > 1) {
    const int64_t middle = (below + from) / 2;
    (is_worth_it(middle) ? from : below) = middle;
  }
  speed->streamed_from_tokens = from;
}

}  // namespace

PlanSpeed PredictSpeed(const model::ModelConfig& config, const Plan& plan) {
  PlanSpeed speed;
  speed.context = kPredictedContext;
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
  PredictStreaming(config, plan, chunk, &speed);
  return speed;
}

}  // namespace dovetail::coordinator
