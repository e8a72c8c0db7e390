#include "worker/layers/lm_head.h"

#include <utility>

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

LmHead::LmHead(const Linear& lm_head, int32_t vocab_size, MemberColumns columns)
    : lm_head_(lm_head),
      columns_(std::move(columns)),
      stride_(columns_.member == 0 ? vocab_size : lm_head.out_features) {
  forms_ = ActivationForms::Of({&lm_head_});
}

void LmHead::Forward(StepContext& step) const {
  if (step.x_rows == 0) return;
  const LinearInput all(step.x, lm_head_.in_features, forms_, step.ws.normed_act);
  for (const Range& range : step.head_rows) {
    const LinearInput input = all.From(range.begin);
    const auto rows = static_cast<int32_t>(range.end - range.begin);
    step.ops.Quantize(step, input, rows, {0, lm_head_.in_features});
    float* logits = step.ws.logits + range.begin * stride_;
    step.ops.Products(step, {{&lm_head_, logits, false, stride_}}, input, rows,
                      /*check_finite=*/true);
    constexpr auto kBytes = static_cast<int64_t>(sizeof(float));
    const GatheredBuffer buffer = {.data = reinterpret_cast<uint8_t*>(logits),
                                   .row_bytes = stride_ * kBytes,
                                   .group_bytes = kBytes,
                                   .first_column = columns_.begin()};
    step.ops.Gather(step, {&buffer, 1}, rows, columns_, /*at_first=*/true);
  }
}

}  // namespace dovetail::worker
