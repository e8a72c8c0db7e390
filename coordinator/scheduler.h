// Scheduler: decides which tokens of which sequences the next step of a lane computes.
//
// A pure function of its state and of the time that is passed in: no clock, no thread, no input or
// output besides the frame. A lane is a slot of the pipeline and has at most one step in flight.
//
// A step holds the decodes of its lane first. The rest of its time goes to chunks of prompts:
// running sequences by rank, then newly admitted ones (fair_queue.h has the order). How much fits
// is asked of the cost model: while anybody decodes, the busiest worker is to be done with a step
// within token_target / lanes, or twice what the decodes alone take. Chunks of one prompt may be in
// flight in several lanes, because steps pass every worker in order; they are as long as fills the
// route best (lane_choice.h).
//
// A sequence is admitted when the blocks of all its tokens and one more are free, and a share of
// what the running ones may still need. One whose beginning is being computed by another waits for
// it, and then finds it. When a running sequence cannot get its next block, the sequence of the
// lowest rank that is not in flight gives its blocks back; what it has computed goes to the swap
// area or is computed again, whichever is predicted to cost less. Rank is the time of arrival, put
// off by `aging` for each class of priority: the first in rank is never the victim of another, so
// it always progresses and everything ends.
//
// Invariants, checked by Audit():
//   1. A sequence either waits (no blocks, no lane) or runs (in exactly one lane).
//   2. A running sequence's blocks hold its computed tokens; every block has as many references as
//      there are sequences that hold it; so has every place of the swap area.
//   3. A lane has at most lane_capacity() sequences, so that its decodes always fit one step.
// Vectors are reserved from the StepShape; a step allocates nothing. Not thread-safe: owned by the
// engine's thread.
#ifndef DOVETAIL_COORDINATOR_SCHEDULER_H_
#define DOVETAIL_COORDINATOR_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/step_shape.h"
#include "coordinator/cost_model.h"
#include "coordinator/fair_queue.h"
#include "coordinator/kv_cache.h"
#include "coordinator/lane_choice.h"
#include "coordinator/preemption.h"
#include "coordinator/sequence.h"
#include "coordinator/stream_choice.h"
#include "transport/step_frame.h"

namespace dovetail::coordinator {

struct SchedulerOptions {
  StepShape shape;
  int chunk_size = 512;  // most prefill rows of one step
  int lanes = 1;         // most steps in flight
  int hidden_size = 0;
  bool adaptive_lanes = false;  // use as many as pay, at most `lanes`
  // From one token of a stream to its next, while prompts of others are computed.
  absl::Duration token_target = absl::Milliseconds(100);
  absl::Duration aging = absl::Seconds(30);  // a class of priority is worth this much waiting
  Preemption preemption = Preemption::kCheaper;
  CostModelOptions cost;
  int stream_rows = StreamChoice::kNever;  // from how many on a step's experts are streamed
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

struct SchedulerCounts {
  uint64_t swaps = 0;        // preemptions by swap
  uint64_t recomputes = 0;   // preemptions by recomputation
  uint64_t interrupted = 0;  // sequences that a lost epoch made to begin again
  uint64_t streamed = 0;     // steps whose experts were streamed
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
  Sequence* Add(std::unique_ptr<Sequence> sequence, absl::Time now);
  Sequence* Find(uint64_t id);  // nullptr when unknown or removed

  // Fills the frame with the lane's next step and marks its sequences as in flight; false when
  // there is nothing to compute. The lane must have no step in flight; those without are asked in
  // order, lane 0 first. The frame must be sent before the next call. Epoch and step number are the
  // caller's.
  bool Schedule(int lane, absl::Time now, transport::StepFrame* frame);
  absl::Span<const ScheduledRows> in_flight(int lane) const { return lanes_[lane].in_flight; }
  const StepWork& work(int lane) const { return lanes_[lane].work; }  // of the step in flight
  // The lane's step came back, as all that were sent before it did: what it computed can be found
  // from now on, and removed sequences give their blocks back.
  void CompleteStep(int lane);
  // The lane's step failed: as above, but nothing was computed that may be used again. Its
  // sequences must have been removed.
  void DropStep(int lane);
  // The workers are lost with all steps in flight, what they hold and the swap area: every sequence
  // waits, with its tokens, to be computed again.
  void LoseEpoch();

  // Takes the sequence out. Its blocks are freed at once, or when its steps come back.
  void Remove(Sequence* sequence);

  // The steps that follow go to these workers.
  void SetRoute(absl::Span<const int> worker_of_segment, const StreamCost& stream);
  // How long the lane's step took, before it is completed (CostModel::Observe()).
  void Observe(int lane, absl::Span<const uint32_t> segment_us, double round_trip_seconds,
               bool alone);
  CostModel& cost_model() { return model_; }
  const CostModel& cost_model() const { return model_; }
  int num_waiting() const { return static_cast<int>(queue_.waiting().size()); }
  int num_swapped() const;  // of those that wait
  int num_running() const;  // without removed ones
  bool idle() const { return sequences_.empty(); }
  int lane_capacity() const { return lane_capacity_; }
  int decode_lanes() const { return lane_choice_.decode_lanes(); }
  int num_tenants() const { return queue_.num_tenants(); }
  const KvCache& kv() const { return kv_; }
  const BlockPool& pool() const { return kv_.pool(); }
  const SchedulerCounts& counts() const { return counts_; }
  uint64_t num_preemptions() const { return counts_.swaps + counts_.recomputes; }
  // When a request that came now would get its first token, roughly: the prompts that wait, at the
  // speed of full chunks. Zero while nothing is known.
  absl::Duration PredictedWait() const;
  // How long the prompt of a sequence takes at least, alone, without what is found already.
  absl::Duration PredictedPrefill(const Sequence& sequence) const;
  absl::Status Audit() const;

 private:
  struct Lane {
    int num_sequences = 0;  // that decode here
    std::vector<ScheduledRows> in_flight;
    StepWork work;
    bool streams = false;  // experts, in the step that is in flight
  };
  struct Budget {  // what is left of one step
    int rows = 0;
    int sequences = 0;
    int prefill_rows = 0;
    int logit_rows = 0;
    double seconds = 0;  // of the busiest worker, prefill and all; infinite: no limit
    StepWork work;
  };

  void ChooseLanes();
  void Rebalance();
  int SmallestLane() const;
  void EnterLane(Sequence* sequence, int lane);
  bool AnyInFlight() const;
  int64_t RankOf(const Sequence& sequence) const;
  bool Outranks(const Sequence& a, const Sequence& b) const;
  void StartRunning(Sequence* sequence);
  void StopRunning(Sequence* sequence);

  Budget NewBudget() const;
  void LimitPrefill(Budget* budget) const;
  void ScheduleDecodes(int lane, Budget* budget, transport::StepFrame* frame);
  void SchedulePrefill(Sequence* sequence, int lane, Budget* budget, transport::StepFrame* frame);
  int RowsWithin(const Sequence& sequence, int rows, const Budget& budget) const;
  void AppendRows(Sequence* sequence, int num_rows, int lane, Budget* budget,
                  transport::StepFrame* frame);
  void AppendDraw(const Sequence& sequence, const ScheduledRows& rows, int first_row,
                  transport::SequenceStep* step, transport::StepFrame* frame) const;
  void FillHeader(int lane, transport::StepFrame* frame) const;

  Sequence* Admit(absl::Time now);
  bool MayBegin(const Sequence& sequence) const;
  int SpareBlocks(const Sequence& sequence) const;
  bool GrowBlocks(Sequence* sequence);
  Sequence* LowestIdle() const;
  void Preempt(Sequence* sequence);
  bool ShouldSwap(const Sequence& sequence) const;
  void EndStep(int lane);
  void Erase(Sequence* sequence);

  const SchedulerOptions options_;
  const int max_tokens_;  // of one sequence: the context, or the whole KV cache if that is smaller
  const int lane_capacity_;
  KvCache kv_;
  CostModel model_;
  LaneChoice lane_choice_;
  StreamChoice stream_choice_;
  FairQueue queue_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;  // by rank
  std::vector<Lane> lanes_;
  SchedulerCounts counts_;
  int pending_prefill_rows_ = 0;  // of prompts, roughly: as of this round, less what was sent
  // How much of what running sequences may still generate is kept free for them at an admission:
  // rises with each preemption, sinks with each sequence that ends without.
  double growth_share_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SCHEDULER_H_
