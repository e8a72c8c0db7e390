#include "worker/layers/layer.h"

namespace dovetail::worker {

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
