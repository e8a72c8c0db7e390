#include "worker/device/device_moe.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "model/memory_plan.h"

namespace dovetail::worker {
namespace {

// Rows of an expert on average from which on its products are tiles of kMostGroupRows; with fewer
// they are the kernels' for few rows.
constexpr int64_t kManyRowsPerExpert = 8;
constexpr int32_t kFewRows = 8;

kernels::RouterArgs::Score ScoreOf(model::RouterScore score) {
  switch (score) {
    case model::RouterScore::kSoftmax:
      return kernels::RouterArgs::Score::kSoftmax;
    case model::RouterScore::kSigmoid:
      return kernels::RouterArgs::Score::kSigmoid;
    case model::RouterScore::kSoftmaxOfChosen:
      return kernels::RouterArgs::Score::kSoftmaxOfChosen;
  }
  DT_CHECK(false);
}

}  // namespace

DeviceMoe::DeviceMoe(DeviceOps* ops, const int32_t* places, MoeWeights weights,
                     const model::ExpertConfig& config, model::Activation activation)
    : Moe(std::move(weights), config, activation), ops_(*ops), places_(places) {
  streamed_.resize(w_.experts.size());
  for (int kind = kGate; kind < kNumKinds; ++kind) {  // in the order of Forward()
    for (size_t i = 0; i < w_.experts.size(); ++i) {
      const ExpertRange& range = w_.experts[i];
      if (!range.streamed) continue;
      streamed_[i][kind] =
          ops_.stream_of_experts().Add(MatricesOf(range, static_cast<Kind>(kind)), range.count);
    }
  }
}

const ExpertLinear& DeviceMoe::MatricesOf(const ExpertRange& range, Kind kind) {
  return kind == kGate ? range.gate : kind == kUp ? range.up : range.down;
}

// Every group but the last of an expert is full, and an expert that has a group has a row.
DeviceMoe::Sizes DeviceMoe::SizesOf(int32_t rows) const {
  Sizes sizes;
  sizes.pairs = rows * std::min(config_.num_used, num_experts());
  const int64_t all_pairs = int64_t{rows} * config_.num_used;
  if (rows == 1) {
    sizes.group_rows = 1;
  } else if (all_pairs < kManyRowsPerExpert * config_.count) {
    sizes.group_rows = kFewRows;
  } else {
    sizes.group_rows = model::kMostGroupRows;
  }
  sizes.groups = std::min(sizes.pairs, sizes.pairs / sizes.group_rows + num_experts());
  return sizes;
}

void DeviceMoe::Forward(StepContext& step) const {
  const LinearInput normed = NormedInput(step, w_.norm, in_forms_);
  const Workspace& ws = step.ws;
  const LinearInput shared(ws.gate, config_.shared_intermediate_size, shared_down_forms_,
                           ws.inner_act);
  const LinearInput activated(ws.experts.gate, config_.intermediate_size, down_forms_,
                              ws.experts.act);
  Route(step, normed);
  const Sizes sizes = has_experts() ? SizesOf(step.x_rows) : Sizes();
  if (has_experts()) SortPairs(step, sizes);
  ops_.BringDownAhead(step, *this);
  if (has_experts()) ActivateExperts(step, normed, activated, sizes);
  if (has_shared()) ActivateShared(step, normed, shared);
  // Members have all experts, so the pairs are all pairs of the step. All gather in this order.
  activated.GatherForms(step, ws.experts.gate, sizes.pairs, w_.inner);
  shared.GatherForms(step, ws.gate, step.x_rows, w_.shared_inner);
  float* const y = ws.experts.y + w_.outer.begin();
  if (has_experts()) {
    MultiplyGroups(kDown, activated, {y, w_.norm.cols, /*by_y_row=*/true}, sizes);
  }
  if (has_shared()) {
    ops_.Products(step, {{&w_.shared_down_proj, y, false, w_.norm.cols}}, shared, step.x_rows,
                  /*check_finite=*/false);
  }
  if (!ends_layer()) return;
  step.part = last_part();
  Combine(step);
}

void DeviceMoe::Route(StepContext& step, const LinearInput& normed) const {
  ScoreRows(step, normed);
  if (!has_router() && !has_shared()) return;
  const ExpertBuffers& experts = step.ws.experts;
  ops_.kernels().router({.logits = has_router() ? experts.router : nullptr,
                         .choice_bias = w_.choice_bias,
                         .count = config_.count,
                         .num_used = config_.num_used,
                         .score = ScoreOf(config_.score),
                         .normalise = config_.normalise,
                         .scale = config_.scale,
                         .num_groups = config_.num_groups,
                         .groups_used = config_.groups_used,
                         .group_max = config_.group_score == model::GroupScore::kMax,
                         .experts = experts.slot_experts,
                         .weights = experts.slot_weights,
                         .slots = slots_,
                         .gate = w_.shared_gate.weight == nullptr ? nullptr : experts.shared_gate},
                        0, step.x_rows, ops_.stream());
}

void DeviceMoe::SortPairs(StepContext& step, const Sizes& sizes) const {
  const ExpertBuffers& experts = step.ws.experts;
  const DeviceTables& tables = ops_.tables();
  DT_CHECK_LE(sizes.groups, tables.max_groups);
  ops_.kernels().sort_pairs({.experts = experts.slot_experts,
                             .place_of = places_,
                             .rows = step.x_rows,
                             .num_used = config_.num_used,
                             .count = config_.count,
                             .slots = slots_,
                             .first_pair_row = static_cast<int32_t>(FirstPairRow(step.x_rows)),
                             .first_place = w_.first_place,
                             .past_place = past_place_,
                             .max_group_rows = sizes.group_rows,
                             .begin = experts.begin,
                             .slot_sources = experts.slot_sources,
                             .pair_rows = experts.pair_rows,
                             .groups = tables.groups,
                             .num_groups = tables.num_groups},
                            ops_.stream());
}

void DeviceMoe::ActivateShared(StepContext& step, const LinearInput& normed,
                               const LinearInput& activated) const {
  ops_.GatedProducts(step,
                     {.gate_proj = &w_.shared_gate_proj,
                      .up_proj = &w_.shared_up_proj,
                      .panels_per_block = w_.shared_down_proj.panels_per_input_block(),
                      .activation = activation_,
                      .gate = step.ws.gate,
                      .up = step.ws.up,
                      .cols = config_.shared_intermediate_size,
                      .first = static_cast<int32_t>(w_.shared_inner.begin()),
                      .activated = activated},
                     normed, step.x_rows);
}

// Pairs are counted from the first own one; what a row of y belongs to is counted from the first.
void DeviceMoe::ActivateExperts(StepContext& step, const LinearInput& normed,
                                const LinearInput& activated, const Sizes& sizes) const {
  const ExpertBuffers& experts = step.ws.experts;
  const int32_t inner = config_.intermediate_size;
  // f32 inputs lie where the pairs' outputs will be.
  const LinearInput gathered(experts.y, w_.norm.cols, expert_forms_, experts.in_act);
  GatherForms(step, normed, gathered, sizes.pairs);
  const auto first = static_cast<int32_t>(w_.inner.begin());
  const int32_t past = first + w_.experts.front().gate.first.out_features;
  MultiplyGroups(kGate, gathered, {experts.gate + first, inner}, sizes);
  MultiplyGroups(kUp, gathered, {experts.up + first, inner}, sizes);
  ops_.RunGated(activation_, experts.gate, experts.up, inner, sizes.pairs, {first, past},
                activated);
}

void DeviceMoe::GatherForms(StepContext& step, const LinearInput& normed,
                            const LinearInput& gathered, int32_t pairs) const {
  const ExpertBuffers& experts = step.ws.experts;
  const auto gather = [&](int32_t block) {
    ops_.kernels().gather_rows({.from = normed.For(block),
                                .to = gathered.For(block),
                                .to_f32 = experts.y,
                                .first_to_row = static_cast<int32_t>(FirstPairRow(step.x_rows)),
                                .rows = experts.pair_rows,
                                .first = experts.begin + w_.first_place,
                                .past = experts.begin + past_place_},
                               0, pairs, ops_.stream());
  };
  if (gathered.forms().f32) gather(0);
  gathered.ForEachBlock(gather);
}

void DeviceMoe::MultiplyGroups(Kind kind, const LinearInput& input, const Output& output,
                               const Sizes& sizes) const {
  int32_t first = 0;
  for (size_t i = 0; i < w_.experts.size(); ++i) {
    const ExpertRange& range = w_.experts[i];
    if (!range.streamed) {
      Multiply(MatricesOf(range, kind), first, range.count, input, output, sizes);
    } else {
      ExpertStream& stream = ops_.stream_of_experts();
      const ExpertStream::Matrices& matrices = streamed_[i][kind];
      for (int32_t expert = 0; expert < range.count; expert += matrices.per_unit) {
        const int32_t count = std::min(matrices.per_unit, range.count - expert);
        Multiply(stream.Use(matrices, expert), first + expert, count, input, output, sizes);
        stream.Release(matrices, expert);
      }
    }
    first += range.count;
  }
}

void DeviceMoe::Multiply(const ExpertLinear& linear, int32_t first, int32_t count,
                         const LinearInput& input, const Output& output, const Sizes& sizes) const {
  kernels::DeviceMatmulArgs args;
  static_cast<kernels::MatmulArgs&>(args) = MatmulArgsOf(linear.first, 0);
  args.x = input.For(linear.first.activation_block());
  args.y = output.y;
  args.y_stride = output.stride;
  args.w_stride = linear.stride;
  args.bias_stride = linear.bias_stride;
  args.scales = linear.scales;
  args.groups = ops_.tables().groups;
  args.num_groups = ops_.tables().num_groups;
  args.max_groups = sizes.groups;
  args.max_group_rows = sizes.group_rows;
  args.first_matrix = first;
  args.num_matrices = count;
  args.to_y_row = output.by_y_row;
  args.f32_from_y_row = !output.by_y_row;
  ops_.kernels().matmul(args, 0, linear.first.panels(), ops_.stream());
}

void DeviceMoe::Combine(StepContext& step) const {
  const ExpertBuffers& experts = step.ws.experts;
  const int32_t cols = w_.norm.cols;
  const Range own = w_.outer.whole() ? Range{0, cols} : w_.outer.parts[w_.outer.member];
  float* const x = step.x + own.begin;
  ops_.kernels().combine({.y = experts.y + own.begin,
                          .y_stride = cols,
                          .sources = experts.slot_sources,
                          .weights = experts.slot_weights,
                          .slots = slots_,
                          .x = x,
                          .x_stride = cols,
                          .cols = static_cast<int32_t>(own.size())},
                         0, step.x_rows, ops_.stream());
  ops_.kernels().check_finite(x, cols, step.x_rows, own.size(), ops_.FlagOf(step), ops_.stream());
  GatherColumns(step, step.x, cols, step.x_rows, w_.outer);
}

}  // namespace dovetail::worker
