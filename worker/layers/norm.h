// RmsNorm: a norm's weight; Norm: the model's last norm as an op.
#ifndef DOVETAIL_WORKER_LAYERS_NORM_H_
#define DOVETAIL_WORKER_LAYERS_NORM_H_

#include <cstdint>

#include "worker/layers/layer.h"
#include "worker/layers/linear.h"

namespace dovetail::worker {

struct RmsNorm {
  const float* weight = nullptr;
  int32_t cols = 0;
  float eps = 0;

  kernels::RmsNormArgs Args(const float* x, float* y) const {
    return {.x = x,
            .x_stride = cols,
            .weight = weight,
            .y = y,
            .y_stride = cols,
            .cols = cols,
            .eps = eps};
  }
};

// normed = norm(x) for all rows of the residual stream, quantised as `forms` says.
LinearInput NormedInput(StepContext& step, const RmsNorm& norm, ActivationForms forms);

// Takes the rows whose logits are wanted out of the residual stream and normalises them; they are
// the residual stream from here on.
class Norm : public Layer {
 public:
  explicit Norm(RmsNorm norm) : norm_(norm) {}
  void Forward(StepContext& step) const override;

 private:
  RmsNorm norm_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_NORM_H_
