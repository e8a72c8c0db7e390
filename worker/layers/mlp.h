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

class Mlp : public Layer {
 public:
  // `inner` and `outer`: the columns that the members of its segment make, if it has any.
  Mlp(const MlpWeights& weights, model::Activation activation, MemberColumns inner = {},
      MemberColumns outer = {});
  void Forward(StepContext& step) const override;

 private:
  MlpWeights w_;
  model::Activation activation_;
  MemberColumns inner_, outer_;
  ActivationForms in_forms_;
  ActivationForms down_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_MLP_H_
