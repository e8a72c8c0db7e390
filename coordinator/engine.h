// Engine: turns requests into steps and steps into tokens.
//
// One thread owns the scheduler, the block pool and all sequences. Others talk to it through a
// bounded inbox (Submit, Cancel, SetPipeline); results go to each request's TokenSink on the
// engine's thread. The loop: drain the inbox (cancels first), collect finished steps, emit,
// schedule, send, sleep on the doorbell.
//
// Without a pipeline (loading, recovering) new requests are refused with kUnavailable. Requests
// that had begun when the pipeline was lost wait for the next one: their tokens are computed again
// and they go on, with the tokens that they would have had. They end with kUnavailable if it does
// not come within recovery_timeout, or will not come at all.
#ifndef DOVETAIL_COORDINATOR_ENGINE_H_
#define DOVETAIL_COORDINATOR_ENGINE_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/sampling_params.h"
#include "base/step_shape.h"
#include "coordinator/cost_model.h"
#include "coordinator/logit_adjustments.h"
#include "coordinator/pipeline.h"
#include "coordinator/preemption.h"
#include "coordinator/token_constraint.h"

namespace dovetail::coordinator {

using RequestId = uint64_t;

// kToolCalls is what GenerationService makes of kStop after calls of tools.
enum class FinishReason { kStop, kLength, kToolCalls, kCancelled, kError };

struct RequestUsage {
  int prompt_tokens = 0;
  int completion_tokens = 0;
  int cached_tokens = 0;     // of the prompt, found in the KV cache
  int reasoning_tokens = 0;  // among the completion's; GenerationService counts them
  absl::Time admitted = absl::InfiniteFuture();  // began to run; known in the end, if it ever did
};

// Receives one request's results. Called on the engine's thread; must not block and must not call
// back into the engine except Cancel(). After OnFinish no more calls come.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void OnToken(int32_t token) = 0;
  // The logprobs of the token at `position`, its own first; only with num_top_logprobs >= 0. Of
  // prompt tokens from the second on with EngineRequest::logits; of others before OnToken.
  virtual void OnLogprobs(int position, absl::Span<const TokenLogprob> logprobs) {}
  // Logits of prompt rows, in order; only with EngineRequest::logits and without logprobs.
  virtual void OnLogits(int first_row, absl::Span<const float> rows, int vocab_size) {}
  // What the last norm made of prompt rows, in order; only with EngineRequest::hidden.
  virtual void OnHidden(int first_row, absl::Span<const float> rows, int hidden_size) {}
  virtual void OnFinish(FinishReason reason, const absl::Status& status,
                        const RequestUsage& usage) = 0;
};

struct EngineRequest {
  std::vector<int32_t> prompt;  // at least one token, ids below vocab_size
  SamplingParams sampling;
  AdjustmentOptions adjustments;                // end_tokens is filled in by the engine
  std::shared_ptr<TokenConstraint> constraint;  // null: none; needs shape.vocab_size
  int max_tokens = 0;                           // > 0; or 0, with `logits` or `hidden`
  std::vector<int32_t> end_tokens;  // generation ends at these (not emitted); empty: ignore_eos
  bool logits = false;              // send the logits of every prompt row (needs max_logit_rows)
  int num_top_logprobs = -1;        // send logprobs instead, and of every generated token
  // Send what the last norm makes instead: of every prompt row with `logits`, else of the last one.
  // Nothing is generated then.
  bool hidden = false;
  // Requests share the KV blocks of equal beginnings only with the same salt: separates tenants.
  std::string cache_salt;
  std::string tenant;  // whose share of the machine it uses; one for all who give none
  int priority = 0;    // the lower number first
  absl::Time deadline = absl::InfiniteFuture();
};

// A request that runs or waits, as operators see it.
struct SequenceInfo {
  RequestId id = 0;
  std::string tenant;
  bool running = false;  // has a lane and blocks; otherwise it waits
  int lane = -1;
  int prompt_tokens = 0;
  int generated_tokens = 0;
  int computed_tokens = 0;  // of both, in the KV cache
  int kv_blocks = 0;
  int preemptions = 0;
  int priority = 0;
  absl::Duration age;
};

struct EngineOptions {
  StepShape shape;
  int vocab_size = 0;
  int hidden_size = 0;
  int chunk_size = 512;  // prefill tokens of one step
  int max_queue = 256;
  int lanes = 1;  // most steps in flight
  // And where the route comes back to a worker: two workers that send to each other must never both
  // wait for room, so what is on the way has to fit a ring.
  int lanes_on_loops = std::numeric_limits<int>::max();
  bool adaptive_lanes = false;
  absl::Duration token_target = absl::Milliseconds(100);
  Preemption preemption = Preemption::kCheaper;
  // Of tenants, added to that of their requests, which must not be negative where there are some.
  std::map<std::string, int> tenant_priority;
  CostModelOptions cost;
  int stream_rows = 0;  // StreamChoice
  // How long requests wait for a new pipeline.
  absl::Duration recovery_timeout = absl::Seconds(60);
  // A step that has not come back after step_timeout, and step_timeout_per_row for each row that is
  // in flight in any lane, means that the pipeline is lost. Once the times of steps are known, a
  // row's share is what they predict, 20 times: a machine may be busy with something else. Slow is
  // not dead: a worker that ends is noticed at once, one that hangs by its heartbeats.
  absl::Duration step_timeout = absl::Seconds(30);
  absl::Duration step_timeout_per_row = absl::Seconds(1);
  // Modules in execution order, to name the one where a value stopped being finite; may be empty.
  std::vector<std::string> module_names;
  // Called on the engine's thread after an error or a timeout of the pipeline: it is cleared
  // already and its requests wait for the next one. Not called for ClearPipeline().
  std::function<void(const absl::Status&)> on_pipeline_lost;
};

struct EngineStats {
  int running = 0;
  int waiting = 0;
  int kv_blocks_total = 0;
  int kv_blocks_used = 0;
  int kv_blocks_cached = 0;  // findable by their tokens, used or free
  uint64_t prompt_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t steps = 0;
  int waiting_swapped = 0;  // of `waiting`: preempted, with what they computed in the swap area
  int swap_blocks_total = 0;
  int swap_blocks_used = 0;
  int decode_lanes = 1;
  int tenants = 0;
  uint64_t preemptions = 0;  // by swap and by recomputation
  uint64_t preemptions_by_swap = 0;
  uint64_t interrupted = 0;            // sequences that a lost pipeline made to begin again
  uint64_t streamed_steps = 0;         // whose experts GPU workers streamed
  uint64_t recoveries = 0;             // pipelines that came after a lost one
  double recovery_seconds = 0;         // from loss to the new pipeline, all together
  double predicted_wait_seconds = 0;   // to the first token of a request that came now
  uint64_t prefix_queried_tokens = 0;  // prompt tokens of admitted requests
  uint64_t prefix_cached_tokens = 0;   // of these, found in the KV cache
};

class Engine {
 public:
  explicit Engine(const EngineOptions& options);  // starts the thread
  ~Engine();                                      // ends every request with kCancelled, joins

  // kInvalidArgument (prompt longer than the context, with both lengths), kResourceExhausted (queue
  // full, or a prompt that can never fit the KV cache), kUnavailable (no pipeline).
  absl::StatusOr<RequestId> Submit(EngineRequest request, std::shared_ptr<TokenSink> sink);
  // The sequence leaves at the next step border and its blocks are freed; OnFinish(kCancelled)
  // follows.
  void Cancel(RequestId id);

  // The workers are connected: steps may flow. Any thread.
  void SetPipeline(std::unique_ptr<Pipeline> pipeline);
  // The workers are gone, or going. Returns when no step uses the old pipeline any more.
  // Suspend: requests wait for the next one; again meanwhile: the newer reason is the one that they
  // may end with. Clear: there will be none, they end with `reason`.
  void SuspendPipeline(const absl::Status& reason);
  void ClearPipeline(const absl::Status& reason);

  EngineStats stats() const;
  // All requests, in order of arrival. Asks the engine's thread and waits for it: DeadlineExceeded
  // if a step takes longer than the timeout. Not from a TokenSink.
  absl::StatusOr<std::vector<SequenceInfo>> ListSequences(absl::Duration timeout);
  // Wakes the engine's thread to look at its constraints; may be called even after the engine's
  // end.
  std::function<void()> Waker() const;
  // Waits until nothing runs or waits and no step is in flight, or the timeout; returns the number
  // of requests left.
  int WaitIdle(absl::Duration timeout);

 private:
  void DropPipeline(const absl::Status& reason, bool come_back);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_ENGINE_H_
