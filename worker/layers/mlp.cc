#include "worker/layers/mlp.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/packed_layout.h"
#include "worker/layers/block_counter.h"

namespace dovetail::worker {

void RunGated(StepContext& step, const Gated& gated, int64_t begin, int64_t end, int32_t col_begin,
              int32_t col_end) {
  const kernels::GatedArgs args = {.gate = gated.gate + col_begin,
                                   .up = gated.up + col_begin,
                                   .in_stride = gated.cols,
                                   .y = gated.y + col_begin,
                                   .y_stride = gated.cols,
                                   .cols = col_end - col_begin};
  switch (gated.activation) {
    case model::Activation::kSilu:
      return step.kernels.silu_mul(args, begin, end);
    case model::Activation::kGelu:
      return step.kernels.gelu_mul(args, begin, end);
    case model::Activation::kSwigluOai:
      return step.kernels.swiglu_oai(args, begin, end);
  }
  DT_CHECK(false);
}

Mlp::Mlp(const MlpWeights& weights, model::Activation activation, MemberColumns inner,
         MemberColumns outer)
    : w_(weights), activation_(activation), inner_(std::move(inner)), outer_(std::move(outer)) {
  in_forms_ = ActivationForms::Of({&w_.gate_proj, &w_.up_proj});
  down_forms_ = ActivationForms::Of({&w_.down_proj});
}

void Mlp::Forward(StepContext& step) const {
  Workspace& ws = step.ws;
  const int32_t rows = step.x_rows;
  const int64_t hidden = w_.norm.cols;
  const LinearInput normed = NormedInput(step, w_.norm, in_forms_);
  const LinearInput activated(ws.gate, w_.down_proj.in_features, down_forms_, ws.inner_act);
  ProjectUp(step, normed, activated);
  activated.GatherForms(step, ws.gate, rows, inner_);
  const bool accumulate = w_.post_norm.weight == nullptr;
  float* y = accumulate ? step.x : ws.normed;
  RunProducts(step, {{&w_.down_proj, y + outer_.begin(), accumulate, hidden}}, activated, rows,
              /*check_finite=*/true);
  GatherColumns(step, y, hidden, rows, outer_);
  if (!accumulate) AddNormed(step, w_.post_norm, y);
}

void Mlp::ProjectUp(StepContext& step, const LinearInput& normed,
                    const LinearInput& activated) const {
  const int32_t rows = step.x_rows;
  const int32_t first = static_cast<int32_t>(inner_.begin());
  const int32_t own = w_.gate_proj.out_features;
  const int64_t cols = w_.down_proj.in_features;
  const Product gate = {&w_.gate_proj, step.ws.gate + first, false, cols};
  const Product up = {&w_.up_proj, step.ws.up + first, false, cols};
  const int64_t panels = w_.gate_proj.panels();
  const BlockCounter blocks(step.ws.block_counts, panels, w_.down_proj.panels_per_input_block());
  step.pool.Share(panels, kPanelGrain, [&](int64_t begin, int64_t end) {
    RunProductSlice(step, gate, normed, rows, begin, end);
    RunProductSlice(step, up, normed, rows, begin, end);
    blocks.Finish(begin, end, [&](int64_t from, int64_t to) {
      Activate(step, activated, first + static_cast<int32_t>(from * kPanelRows),
               first + static_cast<int32_t>(std::min<int64_t>(to * kPanelRows, own)));
    });
  });
}

void Mlp::Activate(StepContext& step, const LinearInput& activated, int32_t col_begin,
                   int32_t col_end) const {
  const Gated gated = {activation_, step.ws.gate, step.ws.up, step.ws.gate,
                       w_.down_proj.in_features};
  RunGated(step, gated, 0, step.x_rows, col_begin, col_end);
  activated.Quantize(step.kernels, 0, step.x_rows, col_begin, col_end);
}

}  // namespace dovetail::worker
