#include "worker/layers/layer.h"

#include "base/check.h"

namespace dovetail::worker {

void RunGather(StepContext& step, absl::Span<const GatheredBuffer> buffers, int64_t rows,
               const MemberColumns& columns, bool at_first) {
  if (columns.whole() || !step.status.ok()) return;
  DT_CHECK(step.gather != nullptr);
  bool finite = step.finite.load(std::memory_order_relaxed);
  step.status = step.gather->Run(buffers, rows, columns.parts, at_first, &finite);
  if (!finite) step.finite.store(false, std::memory_order_relaxed);
}

void GatherColumns(StepContext& step, float* x, int64_t stride, int64_t rows,
                   const MemberColumns& columns) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(float));
  const GatheredBuffer buffer = {
      .data = reinterpret_cast<uint8_t*>(x), .row_bytes = stride * kBytes, .group_bytes = kBytes};
  RunGather(step, {&buffer, 1}, rows, columns, /*at_first=*/false);
}

void CheckFinite(StepContext& step, const float* x, int64_t stride, int64_t rows, int64_t begin,
                 int64_t end) {
  for (int64_t r = 0; r < rows; ++r) {
    if (!step.kernels.all_finite(x + r * stride + begin, end - begin)) {
      step.finite.store(false, std::memory_order_relaxed);
      return;
    }
  }
}

}  // namespace dovetail::worker
