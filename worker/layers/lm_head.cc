#include "worker/layers/lm_head.h"

namespace dovetail::worker {

LmHead::LmHead(const Linear& lm_head) : lm_head_(lm_head) {
  forms_ = ActivationForms::Of({&lm_head_});
}

void LmHead::Forward(StepContext& step) const {
  if (step.x_rows == 0) return;
  const LinearInput input(step.x, lm_head_.in_features, forms_, step.ws.normed_act);
  ForRows(step, step.x_rows, lm_head_.in_features,
          [&](int64_t begin, int64_t end) { input.Quantize(step.kernels, begin, end); });
  RunProducts(step, {{&lm_head_, step.ws.logits}}, input, step.x_rows, /*check_finite=*/true);
}

}  // namespace dovetail::worker
