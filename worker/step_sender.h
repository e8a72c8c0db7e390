// StepSender: the end of a step. Draws the tokens and sends them, with the logits and logprobs that
// were asked for, to the coordinator.
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
  // One row of logits to draw a token from (then `output` gets it) or to tell logprobs of.
  struct Job {
    float* logits;
    transport::SequenceOutput* output;  // null: nothing is drawn
    const transport::SequenceStep* sequence;
    Sampler::Constraints constraints;
    int32_t target;
    size_t first_logprob, num_logprobs;
  };
  // What of the frame the sequences before this one have used.
  struct Used {
    int logit_rows = 0;
    size_t adjustments = 0;
    size_t mask_words = 0;
  };
  void AddSequence(const transport::StepFrame& frame, const transport::SequenceStep& sequence,
                   const Used& used);
  void RunJobs();
  void RunJob(const Job& job, Sampler* sampler);

  ModelRunner* runner_;
  ThreadPool* pool_;
  std::vector<Sampler> samplers_;  // one per thread
  const int mask_words_;
  std::vector<Job> jobs_;
  std::vector<transport::SequenceOutput> outputs_;
  std::vector<TokenLogprob> logprobs_;
  std::vector<uint32_t> segment_us_;
  std::vector<const float*> logits_;
  std::vector<const float*> hidden_;
  std::vector<transport::ConstBytes> pieces_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_STEP_SENDER_H_
