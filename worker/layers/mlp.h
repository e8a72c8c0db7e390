// Mlp: x += down_proj(act(gate_proj(norm(x))) * up_proj(norm(x))), one dense layer. Some models
// normalise what down_proj makes before it is added. Where workers share its rows, each makes its
// columns of what is activated, and of x.
#ifndef DOVETAIL_WORKER_LAYERS_MLP_H_
#define DOVETAIL_WORKER_LAYERS_MLP_H_

#include <cstdint>

#include "model/model_config.h"
#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

struct MlpWeights {
  RmsNorm norm;
  Linear gate_proj;
  Linear up_proj;
  Linear down_proj;
  RmsNorm post_norm;  // without weight: none
};

// y = act(gate) * up, all [rows, cols] and dense, columns [col_begin, col_end) of rows [begin,
// end).
struct Gated {
  model::Activation activation = model::Activation::kSilu;
  float* gate = nullptr;
  const float* up = nullptr;
  float* y = nullptr;
  int32_t cols = 0;
};
void RunGated(StepContext& step, const Gated& gated, int64_t begin, int64_t end, int32_t col_begin,
              int32_t col_end);

class Mlp : public Layer {
 public:
  // `inner` and `outer`: the columns that the members of its segment make, if it has any.
  Mlp(const MlpWeights& weights, model::Activation activation, MemberColumns inner = {},
      MemberColumns outer = {});
  void Forward(StepContext& step) const override;

 private:
  // gate_proj, up_proj and the activation function in one phase.
  void ProjectUp(StepContext& step, const LinearInput& normed, const LinearInput& activated) const;
  // gate = act(gate) * up, quantised, for columns [col_begin, col_end) of all rows.
  void Activate(StepContext& step, const LinearInput& activated, int32_t col_begin,
                int32_t col_end) const;

  MlpWeights w_;
  model::Activation activation_;
  MemberColumns inner_, outer_;
  ActivationForms in_forms_;
  ActivationForms down_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_MLP_H_
