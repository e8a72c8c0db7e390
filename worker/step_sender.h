// StepSender: the end of a step. Draws the tokens and sends them, with the logits that were asked
// for, to the coordinator.
//
// Used by the executor's thread; sizes are fixed when the plan is loaded, a step allocates nothing.
#ifndef DOVETAIL_WORKER_STEP_SENDER_H_
#define DOVETAIL_WORKER_STEP_SENDER_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/step_shape.h"
#include "base/thread_pool.h"
#include "transport/step_frame.h"
#include "worker/model_runner.h"
#include "worker/sampler.h"

namespace dovetail::worker {

class StepSender {
 public:
  StepSender(ModelRunner* runner, const kernels::KernelTable* kernels, const StepShape& shape,
             ThreadPool* pool);

  absl::Status Send(const transport::StepFrame& frame, transport::TensorSender& sender,
                    absl::Duration timeout);

 private:
  // One token to draw: from which row of logits, for which output.
  struct Draw {
    const transport::SequenceStep* sequence;
    const float* logits;
    size_t output;
  };
  void AddSequence(const transport::SequenceStep& sequence, int first_logit_row);
  void DrawTokens();

  ModelRunner* runner_;
  ThreadPool* pool_;
  std::vector<Sampler> samplers_;  // one per thread
  std::vector<Draw> draws_;
  std::vector<transport::SequenceOutput> outputs_;
  std::vector<uint32_t> segment_us_;
  std::vector<const float*> logits_;
  std::vector<transport::ConstBytes> pieces_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_STEP_SENDER_H_
