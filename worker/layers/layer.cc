#include "worker/layers/layer.h"

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

void GatherColumns(StepContext& step, float* x, int64_t stride, int64_t rows,
                   const MemberColumns& columns) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(float));
  const GatheredBuffer buffer = {
      .data = reinterpret_cast<uint8_t*>(x), .row_bytes = stride * kBytes, .group_bytes = kBytes};
  step.ops.Gather(step, {&buffer, 1}, rows, columns, /*at_first=*/false);
}

}  // namespace dovetail::worker
