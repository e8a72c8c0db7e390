#include "worker/layers/norm.h"

#include <cstring>

namespace dovetail::worker {

void AddNormed(StepContext& step, const RmsNorm& norm, const float* y) {
  kernels::RmsNormArgs args = norm.Args(y, step.x);
  args.accumulate = true;
  ForRows(step, step.x_rows, norm.cols, [&](int64_t begin, int64_t end) {
    step.kernels.rms_norm(args, begin, end);
    CheckFinite(step, step.x + begin * norm.cols, norm.cols, end - begin, 0, norm.cols);
  });
}

LinearInput NormedInput(StepContext& step, const RmsNorm& norm, ActivationForms forms) {
  const LinearInput input(step.ws.normed, norm.cols, forms, step.ws.normed_act);
  ForRows(step, step.x_rows, norm.cols, [&](int64_t begin, int64_t end) {
    step.kernels.rms_norm(norm.Args(step.x, step.ws.normed), begin, end);
    input.Quantize(step.kernels, begin, end);
  });
  return input;
}

void Norm::Forward(StepContext& step) const {
  const int64_t cols = norm_.cols;
  float* out = step.ws.logit_rows;
  const int64_t rows = static_cast<int64_t>(step.logit_rows.size());
  ForRows(step, rows, cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = step.x + step.logit_rows[i] * cols;
      step.kernels.rms_norm(norm_.Args(row, out + i * cols), 0, 1);
    }
    CheckFinite(step, out + begin * cols, cols, end - begin, 0, cols);
  });
  // A row may be wanted further up than it lay, so they move when all are done.
  std::memcpy(step.x, out, static_cast<size_t>(rows * cols) * sizeof(float));
  step.x_rows = static_cast<int32_t>(rows);
}

}  // namespace dovetail::worker
