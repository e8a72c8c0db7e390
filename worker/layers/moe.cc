#include "worker/layers/moe.h"

#include <utility>
#include <vector>

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

Moe::Moe(MoeWeights weights, const model::ExpertConfig& config, model::Activation activation)
    : w_(std::move(weights)), config_(config), activation_(activation) {
  past_place_ = w_.first_place;
  for (const ExpertRange& range : w_.experts) past_place_ += range.count;
  slots_ = config_.num_used + (has_shared_slot() ? 1 : 0);
  std::vector<const Linear*> readers;  // of the normed rows
  if (has_router()) readers.push_back(&w_.router);
  if (has_experts()) {
    const ExpertRange& range = w_.experts.front();
    expert_forms_ = ActivationForms::Of({&range.gate.first, &range.up.first});
    down_forms_ = ActivationForms::Of({&range.down.first});
    readers.insert(readers.end(), {&range.gate.first, &range.up.first});
  }
  if (has_shared()) {
    shared_down_forms_ = ActivationForms::Of({&w_.shared_down_proj});
    readers.insert(readers.end(), {&w_.shared_gate_proj, &w_.shared_up_proj});
    if (w_.shared_gate.weight != nullptr) readers.push_back(&w_.shared_gate);
  }
  in_forms_ = ActivationForms::Of(readers);
}

void Moe::ScoreRows(StepContext& step, const LinearInput& normed) const {
  const ExpertBuffers& experts = step.ws.experts;
  const Product router = {&w_.router, experts.router};
  const Product shared_gate = {&w_.shared_gate, experts.shared_gate};
  const bool has_gate = w_.shared_gate.weight != nullptr;
  step.part = 0;
  if (has_router() && has_gate) {
    step.ops.Products(step, {router, shared_gate}, normed, step.x_rows, /*check_finite=*/true);
  } else if (has_router() || has_gate) {
    step.ops.Products(step, {has_router() ? router : shared_gate}, normed, step.x_rows,
                      /*check_finite=*/true);
  }
}

Moe::PartialRows Moe::PartialRowsOf(int64_t rows) const {
  if (has_experts()) return {FirstPairRow(rows), past_place_};
  return {has_shared() ? rows : 0};
}

int64_t Moe::NumPartialRows(const int32_t* expert_begin, int64_t rows) const {
  const PartialRows partial = PartialRowsOf(rows);
  return partial.rows + (partial.place < 0 ? 0 : expert_begin[partial.place]);
}

int64_t Moe::NumCarriedRows(const int32_t* slot_experts, int64_t rows) const {
  int64_t carried = has_shared() || !has_experts() ? 0 : FirstPairRow(rows);
  for (int64_t i = 0; i < rows * config_.num_used; ++i) {
    carried += w_.place_of[slot_experts[i]] < w_.first_place ? 1 : 0;
  }
  return carried;
}

}  // namespace dovetail::worker
