// LmHead: logits = lm_head(x), for those of the rows that the last norm left whose logits are used.
// Where workers share its rows, the first of them gets all logits.
#ifndef DOVETAIL_WORKER_LAYERS_LM_HEAD_H_
#define DOVETAIL_WORKER_LAYERS_LM_HEAD_H_

#include "worker/layers/layer.h"
#include "worker/layers/linear.h"

namespace dovetail::worker {

class LmHead : public Layer {
 public:
  // `columns`: the tokens whose logits the members of its segment make, if it has any.
  LmHead(const Linear& lm_head, int32_t vocab_size, MemberColumns columns = {});
  void Forward(StepContext& step) const override;

 private:
  Linear lm_head_;
  MemberColumns columns_;
  int32_t stride_;  // of this worker's logits
  ActivationForms forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_LM_HEAD_H_
