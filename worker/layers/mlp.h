// Mlp: x += down_proj(silu(gate_proj(norm(x))) * up_proj(norm(x))), one layer.
#ifndef DOVETAIL_WORKER_LAYERS_MLP_H_
#define DOVETAIL_WORKER_LAYERS_MLP_H_

#include <cstdint>

#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

struct MlpWeights {
  RmsNorm norm;
  Linear gate_proj;
  Linear up_proj;
  Linear down_proj;
};

class Mlp : public Layer {
 public:
  explicit Mlp(const MlpWeights& weights);
  void Forward(StepContext& step) const override;

 private:
  // gate = silu(gate) * up, quantised, for columns [col_begin, col_end) of rows [begin, end).
  void Activate(StepContext& step, const LinearInput& activated, int64_t begin, int64_t end,
                int32_t col_begin, int32_t col_end) const;

  MlpWeights w_;
  ActivationForms in_forms_;
  ActivationForms down_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_MLP_H_
