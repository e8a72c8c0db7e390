// ModelRunner: executes this worker's segments of a step.
//
// Made from a loaded plan: every op of every own segment is bound to its weights, its KV cache and
// the workspace. Used by the executor's thread. The residual stream of a frame is received into
// hidden_buffer(), and is read from there to be sent on.
#ifndef DOVETAIL_WORKER_MODEL_RUNNER_H_
#define DOVETAIL_WORKER_MODEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "transport/step_frame.h"
#include "transport/worker_plan.h"
#include "worker/layers/layer.h"
#include "worker/layers/norm.h"
#include "worker/weight_store.h"
#include "worker/workspace.h"

namespace dovetail::worker {

class ModelRunner {
 public:
  // Takes the plan's weights. InvalidArgument: a route that cannot be a model's.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const transport::WorkerPlan& plan,
                                                             const std::string& worker,
                                                             std::unique_ptr<WeightStore> store,
                                                             const kernels::KernelTable* kernels,
                                                             ThreadPool* pool);

  int32_t hidden_size() const { return store_->config.hidden_size; }
  int32_t vocab_size() const { return store_->config.vocab_size; }
  const WeightStore& store() const { return *store_; }
  Workspace& workspace() { return *workspace_; }
  // Where the rows of the next frame are to be received.
  absl::Span<float> hidden_buffer();

  // What the transport cannot know: tokens inside the vocabulary, the segment's owner, whether the
  // rows of the residual stream are those that the segment starts from.
  absl::Status Validate(const transport::StepFrame& frame) const;

  // Runs segment frame->header.segment, sets hidden_rows, and error_layer where a value stopped
  // being finite; a frame that already has an error passes through untouched. The residual stream
  // to send on is hidden(*frame) afterwards.
  void Run(transport::StepFrame* frame);
  absl::Span<const float> hidden(const transport::StepFrame& frame) const;
  float* logits(int row) const;  // of the last Run with an lm_head

 private:
  struct BoundSegment {
    std::vector<std::unique_ptr<Layer>> layers;  // empty: another worker's
    bool mine = false;
    bool has_attention = false;
    bool after_norm = false;   // starts from the logit rows
    bool from_tokens = false;  // starts from nothing
    uint32_t first_op = 0;     // index in the whole route
  };

  ModelRunner() = default;
  absl::Status OutsideVocabulary(uint64_t step, absl::string_view what, int32_t token) const;
  void BindSegment(const Segment& segment, BoundSegment* bound);
  std::unique_ptr<Layer> BindLayer(const Op& op);
  std::unique_ptr<Layer> BindAttention(const Op& op);
  std::unique_ptr<Layer> BindMlp(const Op& op) const;
  std::unique_ptr<Layer> BindMoe(const Op& op) const;
  // Without weight where the model has no such norm.
  RmsNorm BindNorm(const Op& op, model::WeightRole role) const;
  kernels::KvCacheView NextKvView();
  void FillSequences(const transport::StepFrame& frame);

  StepShape shape_;
  const kernels::KernelTable* kernels_ = nullptr;
  ThreadPool* pool_ = nullptr;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<Workspace> workspace_;
  std::vector<BoundSegment> segments_;
  int kv_layers_bound_ = 0;

  std::vector<kernels::SequenceRows> sequences_;  // of the current step
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_MODEL_RUNNER_H_
