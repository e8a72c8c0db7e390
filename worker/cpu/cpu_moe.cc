#include "worker/cpu/cpu_moe.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/packed_layout.h"
#include "transport/step_frame.h"
#include "worker/cpu/router.h"

namespace dovetail::worker {
namespace {

constexpr int64_t kMoePieces = 256;  // a thread takes at least this part of a phase

// Work of a unit, which is kPanelGrain panels, with so many rows, by one row's arithmetic: reading
// the weights costs about as much as some rows of products.
int64_t UnitWork(int64_t rows) { return rows + 4; }

int64_t CeilDiv(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// The first unit that begins at or after `work`, if unit 0 begins at `first`.
int64_t UnitAt(int64_t work, int64_t first, int64_t unit_work, int64_t units) {
  return std::min(CeilDiv(std::max<int64_t>(work - first, 0), unit_work), units);
}

// Row `from_row` of one input to row `row` of another with the same columns, in all its forms; `x`
// is the other's f32.
void CopyRow(const LinearInput& from, int64_t from_row, const LinearInput& to, int64_t row,
             float* x) {
  const auto copy = [&](auto* target, const auto* source, int64_t stride, int64_t count) {
    std::memcpy(target + row * stride, source + from_row * stride,
                static_cast<size_t>(count) * sizeof(*target));
  };
  const int64_t cols = to.cols();
  DT_CHECK(to.x_stride() == cols && from.x_stride() == cols);
  if (to.forms().f32) copy(x, from.For(0).f32, cols, cols);
  to.ForEachBlock([&](int32_t block) {
    const kernels::Activations target = to.For(block), source = from.For(block);
    copy(target.q, source.q, target.q_stride, cols);
    copy(target.d, source.d, target.d_stride, target.d_stride);
    copy(target.bsum, source.bsum, target.bsum_stride, target.bsum_stride);
  });
}

}  // namespace

void CpuMoe::Forward(StepContext& step) const {
  const LinearInput normed = NormedInput(step, w_.norm, in_forms_);
  Route(step, normed);
  if (!step.finite.load(std::memory_order_relaxed)) return;
  if (has_experts()) SortPairs(step);
  if (num_parts() > 0) ComputeParts(step, normed);
  if (!ends_layer()) return;
  // Made by others meanwhile.
  if (step.partials != nullptr) step.status = step.partials->Receive();
  if (!step.status.ok()) return;
  step.part = last_part();
  Combine(step);
}

void CpuMoe::ComputeParts(StepContext& step, const LinearInput& normed) const {
  const Workspace& ws = step.ws;
  const ExpertBuffers& experts = ws.experts;
  float* gathered = nullptr;  // where their outputs will be
  if (has_experts()) {
    gathered = experts.y + (FirstPairRow(step.x_rows) + OwnPairs(step).begin) * w_.norm.cols;
  }
  const Inputs inputs = {
      .normed = normed,
      .gathered = LinearInput(gathered, w_.norm.cols, expert_forms_, experts.in_act),
      .activated = LinearInput(experts.gate, config_.intermediate_size, down_forms_, experts.act),
      .shared_activated =
          LinearInput(ws.gate, config_.shared_intermediate_size, shared_down_forms_, ws.inner_act)};
  Gather(step, inputs);
  const Panels up_panels = UpPanels();
  ForPanels(step, up_panels, [&](int32_t index, int64_t begin, int64_t end) {
    const Part part = PartOf(step, inputs, index);
    const Product gate = {&part.gate_proj, part.gate, false, part.inner_cols};
    const Product up = {&part.up_proj, part.up, false, part.inner_cols};
    cpu_.RunProductSlice(step, gate, part.input, part.rows, begin, end);
    cpu_.RunProductSlice(step, up, part.input, part.rows, begin, end);
    BlocksOf(step, up_panels, index).Finish(begin, end, [&](int64_t from, int64_t to) {
      ActivatePart(step, part, from, to);
    });
  });
  GatherActivated(step, inputs);
  ForPanels(step, DownPanels(), [&](int32_t index, int64_t begin, int64_t end) {
    const Part part = PartOf(step, inputs, index);
    const Product down = {&part.down_proj, part.y, false, w_.norm.cols};
    cpu_.RunProductSlice(step, down, part.activated, part.rows, begin, end);
  });
}

CpuMoe::Panels CpuMoe::UpPanels() const {
  return {.of_expert = has_experts() ? w_.experts.front().gate.first.panels() : 0,
          .of_shared = has_shared() ? w_.shared_gate_proj.panels() : 0};
}

CpuMoe::Panels CpuMoe::DownPanels() const {
  return {.of_expert = has_experts() ? w_.experts.front().down.first.panels() : 0,
          .of_shared = w_.shared_down_proj.panels()};
}

Range CpuMoe::OwnPairs(const StepContext& step) const {
  if (!has_experts()) return {0, 0};
  const int32_t* begin = step.ws.experts.begin;
  return {begin[w_.first_place], begin[past_place_]};
}

int32_t CpuMoe::RowsOfPart(const StepContext& step, int32_t part) const {
  if (part == num_experts()) return step.x_rows;
  const int32_t* begin = step.ws.experts.begin + w_.first_place;
  return begin[part + 1] - begin[part];
}

CpuMoe::Part CpuMoe::SharedPart(const StepContext& step, const Inputs& inputs) const {
  const auto first = static_cast<int32_t>(w_.shared_inner.begin());
  return {w_.shared_gate_proj,
          w_.shared_up_proj,
          w_.shared_down_proj,
          inputs.normed,
          inputs.shared_activated,
          step.ws.gate + first,
          step.ws.up + first,
          step.ws.experts.y + w_.outer.begin(),
          step.x_rows,
          config_.shared_intermediate_size,
          first};
}

CpuMoe::Part CpuMoe::PartOf(const StepContext& step, const Inputs& inputs, int32_t part) const {
  if (part == num_experts()) return SharedPart(step, inputs);
  const ExpertBuffers& experts = step.ws.experts;
  const int32_t rows = RowsOfPart(step, part);
  const int64_t pair = experts.begin[w_.first_place + part];
  const int64_t own_pair = pair - OwnPairs(step).begin;
  auto range = w_.experts.begin();
  int32_t index = part;
  for (; index >= range->count; ++range) index -= range->count;
  // A single row is read where it is.
  const bool gathered = rows > 1;
  const auto first = static_cast<int32_t>(w_.inner.begin());
  return {range->gate.At(index),
          range->up.At(index),
          range->down.At(index),
          gathered ? inputs.gathered.From(own_pair)
                   : inputs.normed.From(rows == 1 ? experts.pair_rows[own_pair] : 0),
          inputs.activated.From(own_pair),
          experts.gate + own_pair * config_.intermediate_size + first,
          experts.up + own_pair * config_.intermediate_size + first,
          experts.y + (FirstPairRow(step.x_rows) + pair) * w_.norm.cols + w_.outer.begin(),
          rows,
          config_.intermediate_size,
          first};
}

BlockCounter CpuMoe::BlocksOf(const StepContext& step, const Panels& up_panels,
                              int32_t part) const {
  const bool shared = part == num_experts();
  const int64_t of_expert =
      has_experts() ? w_.experts.front().down.first.panels_per_input_block() : 1;
  // The shared expert's come after those of all others.
  const int64_t first = part * BlockCounter::NumBlocks(up_panels.of_expert, of_expert);
  return {step.ws.block_counts + first, up_panels.Of(shared),
          shared ? w_.shared_down_proj.panels_per_input_block() : of_expert};
}

template <typename Fn>
void CpuMoe::ForBusyParts(const StepContext& step, const Fn& fn) const {
  if (has_shared() && step.x_rows > 0 && !fn(num_experts())) return;
  if (!has_experts()) return;
  for (const int32_t* part = step.ws.experts.order; *part >= 0; ++part) {
    if (!fn(*part)) return;
  }
}

template <typename Fn>
void CpuMoe::ForPanels(StepContext& step, const Panels& panels, const Fn& fn) const {
  const auto units_of = [&](int32_t part) {
    return CeilDiv(panels.Of(part == num_experts()), kPanelGrain);
  };
  int64_t total = 0;
  ForBusyParts(step, [&](int32_t part) {
    total += units_of(part) * UnitWork(RowsOfPart(step, part));
    return true;
  });
  cpu_.pool().Share(total, std::max<int64_t>(total / kMoePieces, 1), [&](int64_t from, int64_t to) {
    int64_t first = 0;  // work of the parts before this one
    ForBusyParts(step, [&](int32_t part) {
      const int64_t work = UnitWork(RowsOfPart(step, part)), units = units_of(part);
      const int64_t begin = UnitAt(from, first, work, units) * kPanelGrain;
      const int64_t end =
          std::min(UnitAt(to, first, work, units) * kPanelGrain, panels.Of(part == num_experts()));
      first += units * work;
      if (begin < end) fn(part, begin, end);
      return first < to;
    });
  });
}

void CpuMoe::Route(StepContext& step, const LinearInput& normed) const {
  ScoreRows(step, normed);
  if (!has_router() && !has_shared()) return;
  cpu_.ForRows(step.x_rows, has_router() ? int64_t{config_.count} * config_.num_used : 1,
               [&](int64_t begin, int64_t end) { FillSlots(step, begin, end); });
}

void CpuMoe::FillSlots(StepContext& step, int64_t begin, int64_t end) const {
  const ExpertBuffers& experts = step.ws.experts;
  const bool has_gate = w_.shared_gate.weight != nullptr;
  if (has_gate) {
    cpu_.kernels().sigmoid(experts.shared_gate + begin, experts.shared_gate + begin, end - begin);
  }
  for (int64_t row = begin; row < end; ++row) {
    float* weights = experts.slot_weights + row * slots_;
    if (has_router()) {
      ChooseExperts(cpu_.kernels(), config_, w_.choice_bias, experts.router + row * config_.count,
                    experts.slot_experts + row * config_.num_used, weights);
    }
    // Without a gate of its own the shared expert counts whole, wherever it is.
    if (has_shared_slot()) weights[config_.num_used] = has_gate ? experts.shared_gate[row] : 1.0f;
  }
}

// A counting sort of (row, slot) by the place of the expert: rows of an expert stay in order.
void CpuMoe::SortPairs(StepContext& step) const {
  const ExpertBuffers& experts = step.ws.experts;
  int32_t* begin = experts.begin;
  const int32_t used = config_.num_used;
  const int64_t num_pairs = int64_t{step.x_rows} * used;
  const int32_t first_row = static_cast<int32_t>(FirstPairRow(step.x_rows));
  std::fill(begin, begin + config_.count + 1, 0);
  for (int64_t i = 0; i < num_pairs; ++i) ++begin[w_.place_of[experts.slot_experts[i]] + 1];
  for (int32_t e = 0; e < config_.count; ++e) begin[e + 1] += begin[e];
  const Range own = OwnPairs(step);
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int32_t row = static_cast<int32_t>(i / used), slot = static_cast<int32_t>(i % used);
    const int32_t pair = begin[w_.place_of[experts.slot_experts[i]]]++;
    if (pair >= own.begin && pair < own.end) experts.pair_rows[pair - own.begin] = row;
    experts.slot_sources[int64_t{row} * slots_ + slot] = first_row + pair;
  }
  // Each entry has moved on to where the next expert begins.
  std::copy_backward(begin, begin + config_.count, begin + config_.count + 1);
  begin[0] = 0;
  OrderExperts(step);
  if (!has_shared_slot()) return;
  for (int32_t row = 0; row < step.x_rows; ++row) {
    experts.slot_sources[int64_t{row} * slots_ + used] = row;
  }
}

void CpuMoe::OrderExperts(StepContext& step) const {
  int32_t* const order = step.ws.experts.order;
  int32_t* past = order;
  for (int32_t part = 0; part < num_experts(); ++part) {
    if (RowsOfPart(step, part) > 0) *past++ = part;
  }
  *past = -1;
  std::sort(order, past, [&](int32_t a, int32_t b) {
    const int32_t rows_a = RowsOfPart(step, a), rows_b = RowsOfPart(step, b);
    return rows_a != rows_b ? rows_a > rows_b : a < b;
  });
}

void CpuMoe::Gather(StepContext& step, const Inputs& inputs) const {
  const ExpertBuffers& experts = step.ws.experts;
  if (step.x_rows == 1) return;  // no expert has more than one row
  const Range own = OwnPairs(step);
  float* x = experts.y + (FirstPairRow(step.x_rows) + own.begin) * w_.norm.cols;
  cpu_.ForRows(own.end - own.begin, w_.norm.cols, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      CopyRow(inputs.normed, experts.pair_rows[pair], inputs.gathered, pair, x);
    }
  });
}

void CpuMoe::ActivatePart(StepContext& step, const Part& part, int64_t first_panel,
                          int64_t past_panel) const {
  const auto begin = static_cast<int32_t>(first_panel * kPanelRows);
  const auto end =
      static_cast<int32_t>(std::min<int64_t>(past_panel * kPanelRows, part.gate_proj.out_features));
  const Gated gated = {activation_, part.gate, part.up, part.gate, part.inner_cols};
  cpu_.Activate(gated, part.rows, {begin, end}, part.activated,
                {part.first_col + begin, part.first_col + end});
}

// Members have all experts, so the pairs are all pairs of the step.
void CpuMoe::GatherActivated(StepContext& step, const Inputs& inputs) const {
  const Range pairs = OwnPairs(step);
  inputs.activated.GatherForms(step, step.ws.experts.gate, pairs.size(), w_.inner);
  if (has_shared()) {
    inputs.shared_activated.GatherForms(step, step.ws.gate, step.x_rows, w_.shared_inner);
  }
}

void CpuMoe::Combine(StepContext& step) const {
  const ExpertBuffers& experts = step.ws.experts;
  const int32_t cols = w_.norm.cols;
  const Range own = w_.outer.whole() ? Range{0, cols} : w_.outer.parts[w_.outer.member];
  const kernels::CombineArgs args = {.y = experts.y + own.begin,
                                     .y_stride = cols,
                                     .sources = experts.slot_sources,
                                     .weights = experts.slot_weights,
                                     .slots = slots_,
                                     .x = step.x + own.begin,
                                     .x_stride = cols,
                                     .cols = static_cast<int32_t>(own.size())};
  cpu_.ForRows(step.x_rows, own.size() * slots_, [&](int64_t begin, int64_t end) {
    cpu_.kernels().combine(args, begin, end);
    cpu_.CheckFinite(step, step.x + begin * cols, cols, end - begin, own.begin, own.end);
  });
  GatherColumns(step, step.x, cols, step.x_rows, w_.outer);
}

}  // namespace dovetail::worker
