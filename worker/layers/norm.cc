#include "worker/layers/norm.h"

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

LinearInput NormedInput(StepContext& step, const RmsNorm& norm, ActivationForms forms) {
  const LinearInput input(step.ws.normed, norm.cols, forms, step.ws.normed_act);
  step.ops.NormAndQuantize(step, norm, step.x, step.ws.normed, input, step.x_rows);
  return input;
}

void Norm::Forward(StepContext& step) const {
  step.ops.TakeLogitRows(step, norm_);
  step.x_rows = static_cast<int32_t>(step.logit_rows.size());
}

}  // namespace dovetail::worker
