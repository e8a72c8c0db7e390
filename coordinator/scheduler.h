// Scheduler: decides which tokens of which sequences the next step of a lane computes.
//
// A pure function of its state: no clock, no thread, no input or output besides the frame. A lane
// is a slot of the pipeline and has at most one step in flight. A sequence sticks to its lane while
// rows of it are in flight, so no two steps ever hold chunks of one sequence.
//
// A step holds the lane's decodes first, oldest first, then prefill chunks within `chunk_size`
// rows, oldest first, then newly admitted sequences in order of arrival. A sequence is admitted
// when the blocks of all its tokens and one more are free. When a running sequence cannot get its
// next block, the newest sequence that is not in flight gives its blocks back and starts again
// later ("preempted"); the oldest sequence is never the victim of another, so it always progresses
// and everything ends.
//
// Full blocks whose step came back can be found by their tokens (block_pool.h). An admitted
// sequence begins after the blocks that it finds; at least its last token is always computed, for
// its logits.
//
// Invariants, checked by Audit():
//   1. A sequence is either waiting (no blocks, no lane), or in exactly one lane.
//   2. A running sequence's blocks hold its computed tokens; every block has as many references as
//      there are sequences that hold it.
//   3. A lane has at most lane_capacity() sequences, so that its decodes always fit one step.
// Vectors are reserved from the StepShape; scheduling a step allocates nothing that grows with
// steps. Not thread-safe: owned by the engine's thread.
#ifndef DOVETAIL_COORDINATOR_SCHEDULER_H_
#define DOVETAIL_COORDINATOR_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/step_shape.h"
#include "coordinator/block_pool.h"
#include "coordinator/sequence.h"
#include "transport/step_frame.h"

namespace dovetail::coordinator {

struct SchedulerOptions {
  StepShape shape;
  int chunk_size = 512;  // prefill rows of one step
  int lanes = 1;
  int hidden_size = 0;
};

// What a sequence has in the step that is in flight in a lane.
struct ScheduledRows {
  Sequence* sequence = nullptr;
  int position = 0;
  int num_rows = 0;
  bool samples = false;     // one token comes back
  int first_logit_row = 0;  // prompt row of the first logits that come back
  int num_logit_rows = 0;   // prompt rows whose logits (or logprobs) come back
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // Whether such a request can ever be computed: kInvalidArgument (longer than the context, with
  // both lengths), kResourceExhausted (more than the whole KV cache). Depends on the options only;
  // any thread.
  absl::Status CheckFits(int num_prompt_tokens, int max_tokens) const;
  // Tokens at which such a sequence ends: the prompt and what may be generated.
  int MaxTotalTokens(int num_prompt_tokens, int max_tokens) const;

  // Adds a waiting sequence that passed CheckFits(); ids ascend. The pointer is valid until
  // Remove().
  Sequence* Add(std::unique_ptr<Sequence> sequence);
  Sequence* Find(uint64_t id);  // nullptr when unknown or removed

  // Fills the frame with the lane's next step and marks its sequences as in flight; false when
  // there is nothing to compute. The lane must have no step in flight. Epoch and step number are
  // the caller's.
  bool Schedule(int lane, transport::StepFrame* frame);
  absl::Span<const ScheduledRows> in_flight(int lane) const { return lanes_[lane].in_flight; }
  // The lane's step came back: what it computed can be found from now on, and removed sequences
  // give their blocks back.
  void CompleteStep(int lane);
  // The lane's step failed or is lost: as above, but nothing was computed that may be used again.
  void DropStep(int lane);
  // Nothing that the workers' KV caches hold may be used again.
  void ForgetCached() { pool_.ForgetCached(); }

  // Takes the sequence out. Its blocks are freed at once, or when its step comes back.
  void Remove(Sequence* sequence);

  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int num_running() const;  // without removed ones
  bool idle() const { return sequences_.empty(); }
  int lane_capacity() const { return lane_capacity_; }
  const BlockPool& pool() const { return pool_; }
  uint64_t num_preemptions() const { return num_preemptions_; }
  // Prompt tokens of admitted sequences, and how many of them were found in the KV cache.
  uint64_t num_queried_tokens() const { return num_queried_tokens_; }
  uint64_t num_cached_tokens() const { return num_cached_tokens_; }
  absl::Status Audit() const;

 private:
  struct Lane {
    std::vector<Sequence*> running;  // in order of arrival
    std::vector<ScheduledRows> in_flight;
  };
  struct Budget {  // what is left of one step
    int rows = 0;
    int prefill_rows = 0;
    int logit_rows = 0;
  };

  int MaxComputedTokens(const Sequence& sequence) const;
  bool GrowBlocks(Sequence* sequence);
  Sequence* NewestIdle() const;
  void Preempt(Sequence* sequence);
  void LeaveLane(Sequence* sequence);
  void Rebalance(int lane_idx);
  Sequence* Admit(int lane_idx);
  int SmallestLane() const;
  void ScheduleDecodes(int lane_idx, Budget* budget, transport::StepFrame* frame);
  void SchedulePrefill(Sequence* sequence, Budget* budget, transport::StepFrame* frame);
  void AppendRows(Sequence* sequence, int num_rows, Budget* budget, transport::StepFrame* frame);
  void AppendDraw(const Sequence& sequence, const ScheduledRows& rows, int first_row,
                  transport::SequenceStep* step, transport::StepFrame* frame) const;
  void Erase(Sequence* sequence);
  bool TakeBlocks(Sequence* sequence);
  void CacheBlocks(const ScheduledRows& rows);
  void EndStep(int lane);

  const SchedulerOptions options_;
  const int max_tokens_;  // of one sequence: the context, or the whole KV cache if that is smaller
  const int lane_capacity_;
  BlockPool pool_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> waiting_;  // in order of arrival
  std::vector<Lane> lanes_;
  uint64_t num_preemptions_ = 0;
  uint64_t num_queried_tokens_ = 0;
  uint64_t num_cached_tokens_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SCHEDULER_H_
