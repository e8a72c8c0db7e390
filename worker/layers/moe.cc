#include "worker/layers/moe.h"

#include <algorithm>

#include "worker/layers/mlp.h"
#include "worker/layers/router.h"

namespace dovetail::worker {
namespace {

// Work of a panel with so many rows, in units of one row's arithmetic: reading the weights costs
// about as much as some rows of products.
int64_t PanelWork(int64_t rows) { return rows + 4; }

// The first panel that begins at or after `work`, if panel 0 begins at `first`.
int64_t PanelAt(int64_t work, int64_t first, int64_t panel_work, int64_t panels) {
  const int64_t at = (std::max<int64_t>(work - first, 0) + panel_work - 1) / panel_work;
  return std::min(at, panels);
}

}  // namespace

Moe::Moe(const MoeWeights& weights, const model::ExpertConfig& config, model::Activation activation)
    : w_(weights), config_(config), activation_(activation) {
  slots_ = config_.num_used + (has_shared() ? 1 : 0);
  expert_forms_ = ActivationForms::Of({&w_.gate.first, &w_.up.first});
  down_forms_ = ActivationForms::Of({&w_.down.first});
  in_forms_ = ActivationForms::Of({&w_.gate.first, &w_.up.first, &w_.router});
  if (has_shared()) {
    in_forms_ = ActivationForms::Of({&w_.gate.first, &w_.up.first, &w_.router, &w_.shared_gate_proj,
                                     &w_.shared_up_proj, &w_.shared_gate});
    shared_down_forms_ = ActivationForms::Of({&w_.shared_down_proj});
  }
}

void Moe::Forward(StepContext& step) const {
  const Workspace& ws = step.ws;
  const ExpertBuffers& experts = ws.experts;
  const LinearInput normed = NormedInput(step, w_.norm, in_forms_);
  const Inputs inputs = {
      .normed = normed,
      .gathered = LinearInput(experts.y, w_.norm.cols, expert_forms_, experts.in_act),
      .activated = LinearInput(experts.gate, config_.intermediate_size, down_forms_, experts.act),
      .shared_activated =
          LinearInput(ws.gate, config_.shared_intermediate_size, shared_down_forms_, ws.inner_act)};
  Route(step, normed);
  SortPairs(step);
  Gather(step, inputs);
  ForPanels(step, w_.gate.first.panels(), w_.shared_gate_proj.panels(),
            [&](int32_t index, int64_t begin, int64_t end) {
              const Part part = PartOf(step, inputs, index);
              const Product gate = {&part.gate_proj, part.gate}, up = {&part.up_proj, part.up};
              RunProductSlice(step, gate, part.input, part.rows, begin, end);
              RunProductSlice(step, up, part.input, part.rows, begin, end);
            });
  Activate(step, inputs);
  ForPanels(step, w_.down.first.panels(), w_.shared_down_proj.panels(),
            [&](int32_t index, int64_t begin, int64_t end) {
              const Part part = PartOf(step, inputs, index);
              const Product down = {&part.down_proj, part.y};
              RunProductSlice(step, down, part.activated, part.rows, begin, end);
            });
  Combine(step);
}

int32_t Moe::RowsOfPart(const StepContext& step, int32_t part) const {
  if (part == config_.count) return step.x_rows;
  const int32_t* begin = step.ws.experts.begin;
  return begin[part + 1] - begin[part];
}

Moe::Part Moe::PartOf(const StepContext& step, const Inputs& inputs, int32_t part) const {
  const ExpertBuffers& experts = step.ws.experts;
  const int32_t rows = RowsOfPart(step, part);
  if (part == config_.count) {
    return {w_.shared_gate_proj,
            w_.shared_up_proj,
            w_.shared_down_proj,
            inputs.normed,
            inputs.shared_activated,
            step.ws.gate,
            step.ws.up,
            experts.y + int64_t{step.x_rows} * config_.num_used * w_.norm.cols,
            rows};
  }
  const int64_t pair = experts.begin[part];
  // A single row is read where it is.
  const bool gathered = rows > 1;
  return {w_.gate.At(part),
          w_.up.At(part),
          w_.down.At(part),
          gathered ? inputs.gathered.From(pair)
                   : inputs.normed.From(rows == 1 ? experts.pair_rows[pair] : 0),
          inputs.activated.From(pair),
          experts.gate + pair * config_.intermediate_size,
          experts.up + pair * config_.intermediate_size,
          experts.y + pair * w_.norm.cols,
          rows};
}

template <typename Fn>
void Moe::ForPanels(StepContext& step, int64_t expert_panels, int64_t shared_panels,
                    const Fn& fn) const {
  const auto panels_of = [&](int32_t part) {
    return part == config_.count ? shared_panels : expert_panels;
  };
  int64_t total = 0;
  for (int32_t part = 0; part < num_parts(); ++part) {
    const int32_t rows = RowsOfPart(step, part);
    if (rows > 0) total += panels_of(part) * PanelWork(rows);
  }
  step.pool.Run([&](int idx, int n) {
    const Range mine = Slice(total, idx, n);
    int64_t first = 0;  // work of the parts before this one
    for (int32_t part = 0; part < num_parts() && first < mine.end; ++part) {
      const int32_t rows = RowsOfPart(step, part);
      if (rows == 0) continue;
      const int64_t work = PanelWork(rows);
      const int64_t begin = PanelAt(mine.begin, first, work, panels_of(part));
      const int64_t end = PanelAt(mine.end, first, work, panels_of(part));
      first += panels_of(part) * work;
      if (begin < end) fn(part, begin, end);
    }
  });
}

void Moe::Route(StepContext& step, const LinearInput& normed) const {
  const ExpertBuffers& experts = step.ws.experts;
  if (w_.shared_gate.weight != nullptr) {
    RunProducts(step, {{&w_.router, experts.router}, {&w_.shared_gate, experts.shared_gate}},
                normed, step.x_rows, /*check_finite=*/true);
  } else {
    RunProducts(step, {{&w_.router, experts.router}}, normed, step.x_rows, /*check_finite=*/true);
  }
  ForRows(step, step.x_rows, int64_t{config_.count} * config_.num_used,
          [&](int64_t begin, int64_t end) { FillSlots(step, begin, end); });
}

void Moe::FillSlots(StepContext& step, int64_t begin, int64_t end) const {
  const ExpertBuffers& experts = step.ws.experts;
  const int32_t shared_slot = config_.num_used;
  if (w_.shared_gate.weight != nullptr) {
    step.kernels.sigmoid(experts.shared_gate + begin, experts.shared_gate + begin, end - begin);
  }
  for (int64_t row = begin; row < end; ++row) {
    float* weights = experts.slot_weights + row * slots_;
    ChooseExperts(step.kernels, config_, w_.choice_bias, experts.router + row * config_.count,
                  experts.slot_experts + row * config_.num_used, weights);
    if (!has_shared()) continue;
    weights[shared_slot] = w_.shared_gate.weight == nullptr ? 1.0f : experts.shared_gate[row];
    experts.slot_sources[row * slots_ + shared_slot] =
        static_cast<int32_t>(step.x_rows * config_.num_used + row);
  }
}

// A counting sort of (row, slot) by expert: rows of an expert stay in order.
void Moe::SortPairs(StepContext& step) const {
  const ExpertBuffers& experts = step.ws.experts;
  int32_t* begin = experts.begin;
  const int32_t used = config_.num_used;
  const int64_t num_pairs = int64_t{step.x_rows} * used;
  std::fill(begin, begin + config_.count + 1, 0);
  for (int64_t i = 0; i < num_pairs; ++i) ++begin[experts.slot_experts[i] + 1];
  for (int32_t e = 0; e < config_.count; ++e) begin[e + 1] += begin[e];
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int32_t row = static_cast<int32_t>(i / used), slot = static_cast<int32_t>(i % used);
    const int32_t pair = begin[experts.slot_experts[i]]++;
    experts.pair_rows[pair] = row;
    experts.slot_sources[int64_t{row} * slots_ + slot] = pair;
  }
  // Each entry has moved on to where the next expert begins.
  std::copy_backward(begin, begin + config_.count, begin + config_.count + 1);
  begin[0] = 0;
}

void Moe::Gather(StepContext& step, const Inputs& inputs) const {
  const ExpertBuffers& experts = step.ws.experts;
  if (step.x_rows == 1) return;  // no expert has more than one row
  ForRows(step, int64_t{step.x_rows} * config_.num_used, w_.norm.cols,
          [&](int64_t begin, int64_t end) {
            for (int64_t pair = begin; pair < end; ++pair) {
              inputs.gathered.CopyRow(inputs.normed, experts.pair_rows[pair], pair, experts.y);
            }
          });
}

void Moe::Activate(StepContext& step, const Inputs& inputs) const {
  const Workspace& ws = step.ws;
  const int32_t cols = config_.intermediate_size;
  const int32_t shared_cols = config_.shared_intermediate_size;
  const Gated gated = {activation_, ws.experts.gate, ws.experts.up, ws.experts.gate, cols};
  const Gated shared = {activation_, ws.gate, ws.up, ws.gate, shared_cols};
  // Rows of pairs, then those of the shared expert.
  const int64_t pairs = int64_t{step.x_rows} * config_.num_used;
  const int64_t rows = pairs + (has_shared() ? step.x_rows : 0);
  ForRows(step, rows, std::max(cols, shared_cols), [&](int64_t begin, int64_t end) {
    const int64_t last = std::min(end, pairs);
    if (begin < last) {
      RunGated(step, gated, begin, last, 0, cols);
      inputs.activated.Quantize(step.kernels, begin, last);
    }
    const int64_t first = std::max(begin, pairs);
    if (first < end) {
      RunGated(step, shared, first - pairs, end - pairs, 0, shared_cols);
      inputs.shared_activated.Quantize(step.kernels, first - pairs, end - pairs);
    }
  });
}

void Moe::Combine(StepContext& step) const {
  const ExpertBuffers& experts = step.ws.experts;
  const int32_t cols = w_.norm.cols;
  const kernels::CombineArgs args = {.y = experts.y,
                                     .y_stride = cols,
                                     .sources = experts.slot_sources,
                                     .weights = experts.slot_weights,
                                     .slots = slots_,
                                     .x = step.x,
                                     .x_stride = cols,
                                     .cols = cols};
  ForRows(step, step.x_rows, int64_t{cols} * slots_, [&](int64_t begin, int64_t end) {
    step.kernels.combine(args, begin, end);
    CheckFinite(step, step.x + begin * cols, cols, end - begin, 0, cols);
  });
}

}  // namespace dovetail::worker
