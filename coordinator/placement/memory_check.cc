#include "coordinator/placement/memory_check.h"

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/placement/plan_table.h"

namespace dovetail::coordinator {
namespace {

bool Fits(const std::vector<PlacedWorker>& workers) {
  return std::all_of(workers.begin(), workers.end(), [](const PlacedWorker& worker) {
    return worker.memory.total() <= worker.device.memory_bytes;
  });
}

// Endpoints from which steps come to this worker: the coordinator, and workers before it in the
// route.
int CountSources(const Route& route, const std::string& worker) {
  std::set<std::string> sources;
  for (size_t i = 0; i < route.size(); ++i) {
    if (route[i].worker == worker) sources.insert(i == 0 ? "" : route[i - 1].worker);
  }
  return static_cast<int>(sources.size());
}

// The shape with a KV cache of `num_blocks`, and no context longer than that.
StepShape WithBlocks(StepShape shape, int num_blocks) {
  shape.num_kv_blocks = num_blocks;
  shape.context_length = static_cast<int32_t>(
      std::min<int64_t>(shape.context_length, int64_t{num_blocks} * kKvBlockTokens));
  return shape;
}

// The most KV blocks with which all workers fit; 0 if not even one block does. Bytes grow with
// blocks.
absl::StatusOr<int> MostBlocks(const model::ModelConfig& config, const model::GgufFile& file,
                               const Route& route, const StepShape& shape,
                               std::vector<PlacedWorker> workers) {
  int low = 0;
  int high = shape.num_kv_blocks;  // does not fit
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    DT_RETURN_IF_ERROR(PlanMemory(config, file, route, WithBlocks(shape, middle), &workers));
    (Fits(workers) ? low : high) = middle;
  }
  return low;
}

}  // namespace

absl::Status PlanMemory(const model::ModelConfig& config, const model::GgufFile& file,
                        const Route& route, const StepShape& shape,
                        std::vector<PlacedWorker>* workers) {
  for (PlacedWorker& worker : *workers) {
    DT_ASSIGN_OR_RETURN(
        worker.memory,
        model::PlanWorkerMemory(config, file, worker.ops, shape, worker.device.layout,
                                worker.device.num_threads,
                                CountSources(route, worker.device.name) * model::kRingBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckMemory(const model::ModelConfig& config, const model::GgufFile& file,
                         const Route& route, const StepShape& shape,
                         const std::vector<PlacedWorker>& workers) {
  if (Fits(workers)) return absl::OkStatus();
  DT_ASSIGN_OR_RETURN(const int most_blocks, MostBlocks(config, file, route, shape, workers));
  std::string advice;
  if (most_blocks == 0) {
    advice = "No KV cache is small enough: use more workers, another split, or a smaller model";
  } else {
    const StepShape fitting = WithBlocks(shape, most_blocks);
    advice = absl::StrCat("This would fit: kv_tokens ", int64_t{most_blocks} * kKvBlockTokens,
                          " with context_length ", fitting.context_length);
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "the plan needs more memory than its workers have (context_length ", shape.context_length,
      ", kv_tokens ", int64_t{shape.num_kv_blocks} * kKvBlockTokens, "):\n",
      FormatMemoryTable(workers), advice));
}

}  // namespace dovetail::coordinator
