// LmHead: logits = lm_head(x), for those of the rows that the last norm left whose logits are used.
#ifndef DOVETAIL_WORKER_LAYERS_LM_HEAD_H_
#define DOVETAIL_WORKER_LAYERS_LM_HEAD_H_

#include "worker/layers/layer.h"
#include "worker/layers/linear.h"

namespace dovetail::worker {

class LmHead : public Layer {
 public:
  explicit LmHead(const Linear& lm_head);
  void Forward(StepContext& step) const override;

 private:
  Linear lm_head_;
  ActivationForms forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_LM_HEAD_H_
