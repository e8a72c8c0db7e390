#include "worker/layers/mlp.h"

#include <utility>

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

Mlp::Mlp(const MlpWeights& weights, model::Activation activation, MemberColumns inner,
         MemberColumns outer)
    : w_(weights), activation_(activation), inner_(std::move(inner)), outer_(std::move(outer)) {
  in_forms_ = ActivationForms::Of({&w_.gate_proj, &w_.up_proj});
  down_forms_ = ActivationForms::Of({&w_.down_proj});
}

void Mlp::Forward(StepContext& step) const {
  const Workspace& ws = step.ws;
  const int32_t rows = step.x_rows;
  const int64_t hidden = w_.norm.cols;
  const int32_t cols = w_.down_proj.in_features;
  const LinearInput normed = NormedInput(step, w_.norm, in_forms_);
  const LinearInput activated(ws.gate, cols, down_forms_, ws.inner_act);
  step.ops.GatedProducts(step,
                         {.gate_proj = &w_.gate_proj,
                          .up_proj = &w_.up_proj,
                          .panels_per_block = w_.down_proj.panels_per_input_block(),
                          .activation = activation_,
                          .gate = ws.gate,
                          .up = ws.up,
                          .cols = cols,
                          .first = static_cast<int32_t>(inner_.begin()),
                          .activated = activated},
                         normed, rows);
  activated.GatherForms(step, ws.gate, rows, inner_);
  const bool accumulate = w_.post_norm.weight == nullptr;
  float* y = accumulate ? step.x : ws.normed;
  step.ops.Products(step, {{&w_.down_proj, y + outer_.begin(), accumulate, hidden}}, activated,
                    rows,
                    /*check_finite=*/true);
  GatherColumns(step, y, hidden, rows, outer_);
  if (!accumulate) step.ops.AddNormed(step, w_.post_norm, y);
}

}  // namespace dovetail::worker
