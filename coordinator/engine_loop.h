// EngineLoop: what the engine's thread does, without the thread: requests, scheduler and pipeline.
//
// Engine (engine.h) owns one, feeds it from its inbox and calls CollectOutputs(), ExpireRequests()
// and ScheduleSteps() in turn. Everything here belongs to that thread, except what is marked
// otherwise.
#ifndef DOVETAIL_COORDINATOR_ENGINE_LOOP_H_
#define DOVETAIL_COORDINATOR_ENGINE_LOOP_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/patience.h"
#include "coordinator/engine.h"
#include "coordinator/new_request.h"
#include "coordinator/output_split.h"
#include "coordinator/pipeline.h"
#include "coordinator/scheduler.h"
#include "coordinator/steps_in_flight.h"

namespace dovetail::coordinator {

class EngineLoop {
 public:
  explicit EngineLoop(const EngineOptions& options);

  // Any thread.
  absl::StatusOr<NewRequest> Check(EngineRequest request, std::shared_ptr<TokenSink> sink) const {
    return MakeRequest(options_, scheduler_, std::move(request), std::move(sink));
  }

  void Add(NewRequest request, absl::Time now);
  void Cancel(RequestId id);
  void SetPipeline(std::shared_ptr<Pipeline> pipeline, absl::Time now);
  // Requests wait for the next pipeline, at most recovery_timeout. While they wait: only why.
  void SuspendPipeline(const absl::Status& reason, absl::Time now);
  // No other will come: requests end.
  void ClearPipeline(const absl::Status& reason);
  void EndAll(FinishReason reason, const absl::Status& status);

  // Takes in what came back and tells the sinks. True if anything did.
  bool CollectOutputs(absl::Time now);
  // Ends requests whose deadline passed or that waited too long for a pipeline, and the pipeline if
  // a step is overdue.
  void ExpireRequests(absl::Time now);
  // Sends a step for every lane that has none in flight and something to compute.
  void ScheduleSteps(absl::Time now);

  // How long the loop may sleep if nothing happens.
  absl::Duration UntilNextDeadline(absl::Time now) const;
  const std::shared_ptr<Pipeline>& pipeline() const { return pipeline_; }
  bool idle() const { return scheduler_.idle(); }  // also nothing in flight
  int num_requests() const { return static_cast<int>(requests_.size()); }
  EngineStats Stats() const;
  std::vector<SequenceInfo> ListSequences(absl::Time now) const;

 private:
  struct Request {
    Sequence* sequence;
    std::shared_ptr<TokenSink> sink;
    std::vector<int32_t> end_tokens;
    absl::Time deadline;
    absl::Time arrived;
    std::shared_ptr<TokenConstraint> constraint;
    bool prompt_counted = false;
  };
  absl::Status HandleOutput(absl::Time now);
  void Deliver(const ScheduledRows& rows, const RowsOutput& output);
  static void DeliverLogprobs(const ScheduledRows& rows, bool draws,
                              absl::Span<const TokenLogprob> logprobs, TokenSink* sink);
  void FailStep(int lane, uint32_t error_layer);
  void Finish(RequestId id, FinishReason reason, const absl::Status& status);
  void Lose(const absl::Status& error, absl::Time now);
  void WaitForMask(Request* request);
  void TakeMasks();
  absl::Duration StepAllowance() const;

  const EngineOptions options_;
  Scheduler scheduler_;
  absl::btree_map<RequestId, Request> requests_;
  std::shared_ptr<Pipeline> pipeline_;
  // While requests wait for a pipeline: since when, and why.
  absl::Time suspended_since_ = absl::InfiniteFuture();
  absl::Status suspend_reason_;
  Patience recovery_{absl::InfiniteDuration()};
  StepsInFlight steps_;
  transport::StepFrame frame_;
  transport::StepOutput output_;
  int num_without_mask_ = 0;  // requests that wait for one
  uint64_t num_steps_ = 0;
  uint64_t num_prompt_tokens_ = 0;
  uint64_t num_generated_tokens_ = 0;
  uint64_t num_recoveries_ = 0;
  absl::Duration recovery_time_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_ENGINE_LOOP_H_
