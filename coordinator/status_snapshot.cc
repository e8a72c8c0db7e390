#include "coordinator/status_snapshot.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace dovetail::coordinator {
namespace {

// How far a state is from ready.
int Distance(ServingState state) {
  switch (state) {
    case ServingState::kReady:
      return 0;
    case ServingState::kLoading:
      return 1;
    case ServingState::kWaitingForWorkers:
      return 2;
    case ServingState::kRecovering:
      return 3;
    case ServingState::kDraining:
      return 4;
    case ServingState::kFailed:
      break;
  }
  return 5;
}

void AddStats(const EngineStats& part, EngineStats* sum) {
  sum->running += part.running;
  sum->waiting += part.waiting;
  sum->kv_blocks_total += part.kv_blocks_total;
  sum->kv_blocks_used += part.kv_blocks_used;
  sum->kv_blocks_cached += part.kv_blocks_cached;
  sum->prompt_tokens += part.prompt_tokens;
  sum->generated_tokens += part.generated_tokens;
  sum->steps += part.steps;
  sum->waiting_swapped += part.waiting_swapped;
  sum->swap_blocks_total += part.swap_blocks_total;
  sum->swap_blocks_used += part.swap_blocks_used;
  sum->decode_lanes += part.decode_lanes;
  sum->tenants = std::max(sum->tenants, part.tenants);  // the same ones, most likely
  sum->preemptions += part.preemptions;
  sum->streamed_steps += part.streamed_steps;
  sum->preemptions_by_swap += part.preemptions_by_swap;
  sum->interrupted += part.interrupted;
  sum->recoveries += part.recoveries;
  sum->recovery_seconds += part.recovery_seconds;
  sum->predicted_wait_seconds = std::max(sum->predicted_wait_seconds, part.predicted_wait_seconds);
  sum->prefix_queried_tokens += part.prefix_queried_tokens;
  sum->prefix_cached_tokens += part.prefix_cached_tokens;
}

}  // namespace

StatusSnapshot CombineStatus(std::vector<StatusSnapshot> models) {
  if (models.size() == 1) return std::move(models[0]);
  StatusSnapshot all;
  all.state = ServingState::kReady;
  all.engine.decode_lanes = 0;
  for (const StatusSnapshot& model : models) {
    if (Distance(model.state) > Distance(all.state)) {
      all.state = model.state;
      all.message = model.message.empty() ? "" : absl::StrCat(model.model, ": ", model.message);
    }
    all.uptime_seconds = std::max(all.uptime_seconds, model.uptime_seconds);
    AddStats(model.engine, &all.engine);
    all.workers.insert(all.workers.end(), model.workers.begin(), model.workers.end());
  }
  all.models = std::move(models);
  return all;
}

absl::Span<const StatusSnapshot> ModelsOf(const StatusSnapshot& status) {
  if (status.models.empty()) return absl::MakeConstSpan(&status, 1);
  return status.models;
}

}  // namespace dovetail::coordinator
