#include "worker/layers/lm_head.h"

namespace dovetail::worker {

LmHead::LmHead(const Linear& lm_head) : lm_head_(lm_head) {
  forms_ = ActivationForms::Of({&lm_head_});
}

void LmHead::Forward(StepContext& step) const {
  if (step.x_rows == 0) return;
  const LinearInput all(step.x, lm_head_.in_features, forms_, step.ws.normed_act);
  for (const Range& range : step.head_rows) {
    const LinearInput input = all.From(range.begin);
    const auto rows = static_cast<int32_t>(range.end - range.begin);
    ForRows(step, rows, lm_head_.in_features,
            [&](int64_t begin, int64_t end) { input.Quantize(step.kernels, begin, end); });
    float* logits = step.ws.logits + range.begin * lm_head_.out_features;
    RunProducts(step, {{&lm_head_, logits}}, input, rows, /*check_finite=*/true);
  }
}

}  // namespace dovetail::worker
