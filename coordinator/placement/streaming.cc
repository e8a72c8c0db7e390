#include "coordinator/placement/streaming.h"

#include <algorithm>
#include <limits>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"

namespace dovetail::coordinator {
namespace {

void Add(Severity severity, absl::string_view code, std::string message, Plan* plan) {
  plan->diagnostics.push_back(
      {.code = std::string(code), .severity = severity, .message = std::move(message)});
}

// What a buffer must hold at least: a matrix of one expert with its bias and scale.
int64_t LargestMatrix(const model::ModelConfig& config, const model::GgufFile& file,
                      const std::vector<Op>& ops) {
  const auto slots = model::LayOutWeights(config, file, ops, PackedLayout::kP16);
  if (!slots.ok()) return 0;
  int64_t largest = 0;
  for (const model::WeightSlot& slot : *slots) {
    if (slot.op.kind != OpKind::kExperts || slot.spec.is_vector) continue;
    const int64_t bias = slot.spec.rows * static_cast<int64_t>(sizeof(float));
    largest = std::max(largest, slot.stride() + bias + 3 * 64);
  }
  return largest;
}

}  // namespace

std::vector<Op> StreamedOpsOf(const Plan& plan, const DeviceInfo& worker) {
  if (plan.shape.stream_bytes == 0 || !worker.has_gpu_kernels()) return {};
  return StreamedOps(plan.route, worker.name);
}

StreamCost StreamCostOf(const Plan& plan) {
  StreamCost cost;
  double slowest = std::numeric_limits<double>::infinity();
  for (const PlacedWorker& worker : plan.workers) {
    const std::vector<Op> ops = StreamedOpsOf(plan, worker.device);
    if (ops.empty()) continue;
    slowest = std::min(slowest, worker.device.upload_bandwidth);
    for (const PlacedModule& module : plan.modules) {
      if (absl::c_linear_search(ops, module.op)) cost.bytes += module.packed_bytes;
    }
  }
  if (cost.bytes > 0) cost.bytes_per_second = slowest;
  return cost;
}

void CheckStreaming(const model::ModelConfig& config, const model::GgufFile& file, Plan* plan) {
  if (plan->shape.stream_bytes == 0) return;
  std::vector<Op> all;
  for (const PlacedWorker& worker : plan->workers) {
    const std::vector<Op> ops = StreamedOpsOf(*plan, worker.device);
    all.insert(all.end(), ops.begin(), ops.end());
  }
  if (all.empty()) {
    return Add(Severity::kWarning, "nothing-streamed",
               "`stream_experts`: no GPU worker has experts of CPU workers between two of its own "
               "segments: nothing is streamed",
               plan);
  }
  const int64_t largest = LargestMatrix(config, file, all);
  if (largest > plan->shape.stream_bytes) {
    Add(Severity::kError, "stream-buffer",
        absl::StrCat("`stream_buffer` is ", FormatBytes(plan->shape.stream_bytes),
                     ", a matrix of one expert has ", FormatBytes(largest)),
        plan);
  }
  for (const PlacedWorker& worker : plan->workers) {
    const bool streamed =
        absl::c_any_of(worker.ops, [&](const Op& op) { return absl::c_linear_search(all, op); });
    if (!streamed || worker.device.layout == PackedLayout::kP16) continue;
    Add(Severity::kError, "stream-layout",
        absl::StrCat("`stream_experts`: the experts of ", worker.device.name, " are not packed (",
                     PackedLayoutName(worker.device.layout), "), which a GPU cannot read"),
        plan);
  }
}

}  // namespace dovetail::coordinator
