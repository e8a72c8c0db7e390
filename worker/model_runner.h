// ModelRunner: executes this worker's segments of a step.
//
// Made from a loaded plan: every op of every own segment is bound to its weights, its KV cache and
// the workspace; neighbouring parts of a layer with experts are one layer. Used by the executor's
// thread. The rows of a frame are received into room(), and are read from there to be sent on.
#ifndef DOVETAIL_WORKER_MODEL_RUNNER_H_
#define DOVETAIL_WORKER_MODEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "transport/step_frame.h"
#include "transport/worker_plan.h"
#include "worker/all_gather.h"
#include "worker/layers/layer.h"
#include "worker/layers/moe.h"
#include "worker/layers/norm.h"
#include "worker/layers/step_ops.h"
#include "worker/peer_weights.h"
#include "worker/weight_store.h"
#include "worker/workspace.h"

namespace dovetail::worker {

// What a worker computes with. All outlive the runner.
struct ComputeOptions {
  const kernels::KernelTable* kernels = nullptr;
  ThreadPool* pool = nullptr;
  Device* device = nullptr;  // null: the host's processors
};

class ModelRunner {
 public:
  // Takes the plan's weights. InvalidArgument: a route that cannot be a model's.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const transport::WorkerPlan& plan,
                                                             const std::string& worker,
                                                             std::unique_ptr<WeightStore> store,
                                                             const ComputeOptions& compute);

  const RowShape& row_shape() const { return row_shape_; }
  int32_t vocab_size() const { return store_->config.vocab_size; }
  const WeightStore& store() const { return *store_; }
  // The runner computes nothing after that.
  std::unique_ptr<WeightStore> TakeStore() { return std::move(store_); }
  const HostRows& host() const { return ops_->host(); }
  // Of what the members of a segment gather at once: rows of a step, of logits, or pairs of a row
  // and an expert.
  int64_t max_gathered_rows() const;
  // Of the residual stream of the longest step.
  int64_t max_hidden_bytes() const {
    return int64_t{shape_.max_rows} * row_shape_.hidden_size * static_cast<int64_t>(sizeof(float));
  }
  // Where the rows of the next frame are to be received.
  transport::StepRoom room();

  // What the transport cannot know: tokens inside the vocabulary, the segment's owner, whether the
  // rows that came with the frame are those that the segment starts from.
  absl::Status Validate(const transport::StepFrame& frame) const;

  // The other workers whose experts it may stream for a step (StreamedSegments() in base/route.h);
  // none: it streams none.
  const std::vector<std::string>& streamed_workers() const { return streamed_workers_; }
  // Their weights, in that order; before the first step.
  void BindStreamed(std::vector<std::unique_ptr<PeerWeights>> peers);
  bool bound_streamed() const { return !peers_.empty(); }

  // Runs segment frame->header.segment, sets the counts of rows, and error_layer where a value
  // stopped being finite; for a frame that already has an error only its blocks are copied. The
  // time that it took is appended to the frame's segment_us. The rows to send on are rows(*frame)
  // afterwards. `gather`: of a segment whose rows workers share; an error is the gather's. A frame
  // with kStreamExperts is at the last segment of those that were run for it. `links`: the residual
  // stream comes, or has gone, by them and not with the frame. `partials`: those of the frame, if
  // they are not in room() yet; they may not be, still, afterwards.
  absl::Status Run(transport::StepFrame* frame, AllGather* gather = nullptr,
                   const StepLinks& links = {}, transport::ComingPartials* partials = nullptr);
  // After Run(): whether the partials of rows(*frame), where it has some, are not there yet, and
  // waits for them: before another frame is received.
  bool makes_partials() const { return ops_->makes_partials(); }
  absl::Status AwaitPartials() { return ops_->AwaitPartials(); }
  // The last of the segments that Run() would run.
  uint32_t LastSegment(const transport::StepHeader& header) const;
  transport::StepRows rows(const transport::StepFrame& frame) const;
  float* logits(int row) const;        // of the last Run with an lm_head
  const float* hidden(int row) const;  // what lm_head reads, of the same Run

 private:
  struct BoundLayer {
    std::unique_ptr<Layer> layer;
    std::vector<uint32_t> ops;  // that it stands for: indices in the model's ops
  };
  struct BoundSegment {
    std::vector<BoundLayer> layers;  // empty: another worker's
    std::vector<uint32_t> ops;       // of all of them
    bool mine = false;
    bool has_attention = false;
    bool has_lm_head = false;
    bool after_norm = false;   // starts from the logit rows
    bool from_tokens = false;  // starts from nothing
    bool embeds_in_head = false;
    const Moe* enters = nullptr;  // starts inside this layer with experts
    const Moe* leaves = nullptr;  // ends inside this one
    std::vector<KvRegion> kv;     // of its attention layers
  };

  // Segments that are run as one where experts are streamed.
  struct StreamedRun {
    uint32_t last = 0;
    BoundSegment bound;
  };

  ModelRunner() = default;
  // Whether segment `i` is this worker's alone.
  bool RunsAlone(size_t i) const {
    return route_[i].worker == worker_ && route_[i].members.empty();
  }
  const WeightStore* FindPeerOf(const Op& experts) const;
  void AddSegmentTimes(uint32_t microseconds, uint32_t last, transport::StepFrame* frame) const;
  absl::Status MakeOps(const ComputeOptions& compute);
  absl::Status OutsideVocabulary(uint64_t step, absl::string_view what, int32_t token) const;
  void BindSegment(const std::vector<Op>& ops, BoundSegment* bound);
  std::unique_ptr<Layer> BindLayer(const Op& op);
  std::unique_ptr<Layer> BindAttention(const Op& op);
  std::unique_ptr<Layer> BindLatentAttention(const Op& op);
  std::unique_ptr<Layer> BindMlp(const Op& op) const;
  // Without weight where the model has no such norm.
  RmsNorm BindNorm(const Op& op, model::WeightRole role) const;
  // The next part of the cache, or what the op had when it was bound before.
  kernels::KvCacheView KvViewOf(const Op& op);
  absl::Status ValidateRows(const transport::StepHeader& header) const;
  // nullptr: the header's segment alone is run.
  const StreamedRun* FindStreamedRun(const transport::StepHeader& header) const;
  absl::Status Compute(const BoundSegment& segment, bool streamed, const StepLinks& links,
                       transport::StepFrame* frame, AllGather* gather,
                       transport::ComingPartials* partials);
  void FillSequences(const transport::StepFrame& frame);
  // Sets the header's counts for what a segment leaves.
  void CountRows(const BoundSegment& segment, const StepContext& step,
                 transport::StepHeader* header) const;

  Route route_;
  std::string worker_;
  std::vector<std::string> streamed_workers_;
  std::vector<std::unique_ptr<PeerWeights>> peers_;
  StepShape shape_;
  RowShape row_shape_;
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<Workspace> workspace_;
  std::unique_ptr<StepOps> ops_;
  std::vector<BoundSegment> segments_;
  std::map<uint32_t, StreamedRun> streamed_runs_;     // by their first segment
  std::map<int32_t, kernels::KvCacheView> kv_views_;  // by layer
  bool on_device_ = false;
  int64_t kv_bytes_bound_ = 0;
  std::vector<KvRegion>* kv_of_segment_ = nullptr;  // of the one that is being bound

  std::vector<kernels::SequenceRows> sequences_;  // of the current step
  std::vector<Range> head_rows_;                  // of the current step
  std::vector<Range> logits_wanted_;              // of the current step
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_MODEL_RUNNER_H_
