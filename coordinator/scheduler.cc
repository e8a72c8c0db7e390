#include "coordinator/scheduler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::coordinator {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();
// Prefill may take as long as the decodes of its step at least, and a block of rows always goes:
// else prompts would never be computed where decodes alone exceed the target.
constexpr double kDecodesTimes = 2;
constexpr int kLeastChunk = kKvBlockTokens;
constexpr double kFirstGrowthShare = 0.1;
constexpr double kGrowthShareSinks = 0.98;

// One token that follows what is computed already, after the prompt: it may take a new block.
bool IsDecode(const Sequence& sequence) {
  return sequence.num_pending_tokens() == 1 &&
         sequence.num_computed_tokens >= sequence.num_prompt_tokens;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      max_tokens_(static_cast<int>(std::min<int64_t>(
          options.shape.context_length, int64_t{options.shape.num_kv_blocks} * kKvBlockTokens))),
      lane_capacity_(std::min(
          {options.shape.max_sequences, options.shape.max_rows, options.shape.max_logit_rows})),
      kv_(options.shape),
      model_(options.cost),
      lane_choice_(options.lanes, options.adaptive_lanes),
      stream_choice_(options.stream_rows),
      queue_(options.aging),
      lanes_(options.lanes),
      growth_share_(kFirstGrowthShare) {
  DT_CHECK_GT(options.lanes, 0);
  DT_CHECK_GT(options.chunk_size, 0);
  DT_CHECK_GT(options.shape.context_length, 0);
  DT_CHECK_GT(lane_capacity_, 0);
  running_.reserve(static_cast<size_t>(lane_capacity_) * options.lanes);
  for (Lane& lane : lanes_) lane.in_flight.reserve(options.shape.max_sequences);
}

absl::Status Scheduler::CheckFits(int num_prompt_tokens, int max_tokens) const {
  const int context = options_.shape.context_length;
  const int needed = num_prompt_tokens + (max_tokens > 0 ? 1 : 0);
  if (needed > context) {
    return absl::InvalidArgumentError(
        absl::StrCat("this model's maximum context length is ", context,
                     " tokens; your prompt has ", num_prompt_tokens, " tokens",
                     num_prompt_tokens == context ? ", which leaves no room for an answer" : ""));
  }
  if (needed > max_tokens_) {
    return absl::ResourceExhaustedError(absl::StrCat("the whole KV cache holds ", max_tokens_,
                                                     " tokens; your prompt has ", num_prompt_tokens,
                                                     " tokens"));
  }
  return absl::OkStatus();
}

int Scheduler::MaxTotalTokens(int num_prompt_tokens, int max_tokens) const {
  return static_cast<int>(std::min<int64_t>(int64_t{num_prompt_tokens} + max_tokens, max_tokens_));
}

Sequence* Scheduler::Add(std::unique_ptr<Sequence> sequence, absl::Time now) {
  Sequence* added = sequence.get();
  DT_CHECK(added->num_tokens() > 0 && added->num_tokens() == added->num_prompt_tokens);
  DT_CHECK(added->max_total_tokens >= added->num_prompt_tokens &&
           added->max_total_tokens <= max_tokens_);
  added->arrival = now;
  KvCache::Reserve(added);
  DT_CHECK(sequences_.emplace(added->id, std::move(sequence)).second);
  queue_.Enter(added);
  queue_.Push(added);
  return added;
}

Sequence* Scheduler::Find(uint64_t id) {
  auto it = sequences_.find(id);
  return it == sequences_.end() || it->second->removed ? nullptr : it->second.get();
}

bool Scheduler::Schedule(int lane_idx, absl::Time now, transport::StepFrame* frame) {
  Lane& lane = lanes_[lane_idx];
  DT_CHECK(lane.in_flight.empty());
  if (lane_idx ==
      0) {  // once in a round, before any lane was asked: nobody is moved behind its turn
    ChooseLanes();
    Rebalance();
  }
  // A lane that is not needed any more keeps those of its sequences that no other has room for.
  const bool in_use = lane_idx < lane_choice_.in_flight();
  if (!in_use && lane.num_sequences == 0) return false;

  frame->Clear();
  Budget budget = NewBudget();
  ScheduleDecodes(lane_idx, &budget, frame);
  if (in_use) {
    LimitPrefill(&budget);
    for (Sequence* sequence : running_) {
      if (sequence->removed || sequence->num_pending_tokens() == 0 || IsDecode(*sequence)) continue;
      SchedulePrefill(sequence, lane_idx, &budget, frame);
    }
    while (budget.prefill_rows > 0 && budget.sequences > 0) {
      Sequence* admitted = Admit(now);
      if (admitted == nullptr) break;
      SchedulePrefill(admitted, lane_idx, &budget, frame);
    }
  }
  if (lane.in_flight.empty()) return false;
  frame->copies.swap(kv_.pending_copies());
  kv_.pending_copies().clear();
  budget.work.copies = static_cast<double>(frame->copies.size());
  lane.work = budget.work;
  lane.streams = stream_choice_.Streams(model_, lane.work);
  if (lane.streams) ++counts_.streamed;
  FillHeader(lane_idx, frame);
  return true;
}

void Scheduler::FillHeader(int lane, transport::StepFrame* frame) const {
  transport::StepHeader& header = frame->header;
  header.lane = static_cast<uint32_t>(lane);
  header.num_sequences = static_cast<uint32_t>(frame->sequences.size());
  header.num_copies = static_cast<uint32_t>(frame->copies.size());
  header.num_rows = static_cast<uint32_t>(frame->tokens.size());
  header.num_block_ids = static_cast<uint32_t>(frame->block_ids.size());
  header.num_logit_rows = static_cast<uint32_t>(frame->logit_rows.size());
  header.num_adjustments = static_cast<uint32_t>(frame->adjustments.size());
  header.hidden_size = static_cast<uint32_t>(options_.hidden_size);
  if (lanes_[lane].streams) header.flags |= transport::StepHeader::kStreamExperts;
}

Scheduler::Budget Scheduler::NewBudget() const {
  Budget budget;
  budget.rows = options_.shape.max_rows;
  budget.sequences = options_.shape.max_sequences;
  budget.logit_rows = options_.shape.max_logit_rows;
  budget.seconds = kNoLimit;
  return budget;
}

// What is left for prompts after the decodes.
void Scheduler::LimitPrefill(Budget* budget) const {
  const int chunk =
      stream_choice_.ChunkRows(model_, lane_choice_, pending_prefill_rows_, options_.chunk_size);
  budget->prefill_rows = std::min(chunk, budget->rows);
  const bool anybody_decodes = std::any_of(running_.begin(), running_.end(),
                                           [](const Sequence* s) { return s->prompt_confirmed(); });
  if (!anybody_decodes || !model_.ready()) return;
  // So many steps pass between two of one lane.
  const double target = absl::ToDoubleSeconds(options_.token_target) / lane_choice_.in_flight();
  budget->seconds = std::max(target, kDecodesTimes * model_.BottleneckSeconds(budget->work));
}

void Scheduler::ScheduleDecodes(int lane, Budget* budget, transport::StepFrame* frame) {
  // A preemption takes this sequence or lower ones out of `running_`, so walking by index stays
  // right.
  for (size_t i = 0; i < running_.size();) {
    Sequence* sequence = running_[i];
    if (sequence->lane == lane && !sequence->removed && IsDecode(*sequence) &&
        sequence->num_in_flight == 0 && !sequence->waits_for_mask && GrowBlocks(sequence)) {
      AppendRows(sequence, 1, lane, budget, frame);
    }
    if (sequence->lane >= 0) ++i;
  }
}

void Scheduler::SchedulePrefill(Sequence* sequence, int lane, Budget* budget,
                                transport::StepFrame* frame) {
  if (budget->sequences == 0) return;
  int num_rows = std::min(sequence->num_pending_tokens(), budget->prefill_rows);
  const int unsent =
      sequence->wants_logits ? sequence->num_prompt_tokens - sequence->num_logit_rows_sent : 0;
  if (unsent > 0) {
    // Rows whose logits went out before a preemption cost none of the budget.
    const int again = sequence->num_logit_rows_sent - sequence->num_computed_tokens;
    num_rows = std::min(num_rows, again + budget->logit_rows);
  } else if (sequence->samples() && num_rows == sequence->num_pending_tokens() &&
             budget->logit_rows == 0) {
    --num_rows;  // everything but the row that would be sampled from
  }
  if (sequence->waits_for_mask && sequence->samples() &&
      num_rows == sequence->num_pending_tokens()) {
    --num_rows;
  }
  num_rows = RowsWithin(*sequence, num_rows, *budget);
  if (num_rows <= 0) return;
  budget->prefill_rows -= num_rows;
  AppendRows(sequence, num_rows, lane, budget, frame);
}

// The most of `rows` that the step's time allows.
int Scheduler::RowsWithin(const Sequence& sequence, int rows, const Budget& budget) const {
  if (rows <= 0 || budget.seconds == kNoLimit) return rows;
  const auto fits = [&](int count) {
    StepWork work = budget.work;
    work.AddPrefill(sequence.num_computed_tokens, count);
    return model_.BottleneckSeconds(work) <= budget.seconds;
  };
  if (fits(rows)) return rows;
  int low = 0;  // fits, or at least goes
  for (int high = rows; high - low > 1;) {
    const int middle = (low + high) / 2;
    (fits(middle) ? low : high) = middle;
  }
  // Whole blocks, where there are any.
  const int aligned = (sequence.num_computed_tokens + low) / kKvBlockTokens * kKvBlockTokens -
                      sequence.num_computed_tokens;
  if (aligned > 0) low = aligned;
  const bool first = budget.work.prefill_rows == 0;
  return first ? std::max(low, std::min(rows, kLeastChunk)) : low;
}

void Scheduler::AppendRows(Sequence* sequence, int num_rows, int lane, Budget* budget,
                           transport::StepFrame* frame) {
  ScheduledRows rows;
  rows.sequence = sequence;
  rows.position = sequence->num_computed_tokens;
  rows.num_rows = num_rows;
  const int end = rows.position + num_rows;
  rows.samples = sequence->samples() && end == sequence->num_tokens();
  const int first_row = static_cast<int>(frame->tokens.size());
  if (sequence->wants_logits) {
    rows.first_logit_row = sequence->num_logit_rows_sent;
    rows.num_logit_rows =
        std::max(0, std::min(end, sequence->num_prompt_tokens) - sequence->num_logit_rows_sent);
    sequence->num_logit_rows_sent += rows.num_logit_rows;
  }

  transport::SequenceStep step;
  step.sequence_id = sequence->id;
  step.num_rows = num_rows;
  step.position = rows.position;
  step.num_blocks = static_cast<int32_t>(sequence->blocks.size());
  step.sampling = sequence->sampling;
  if (rows.samples) step.flags |= transport::SequenceStep::kSample;
  if (rows.num_logit_rows > 0) {
    if (sequence->wants_hidden) {
      step.flags |= transport::SequenceStep::kReturnHidden;
    } else if (sequence->num_top_logprobs < 0) {
      step.flags |= transport::SequenceStep::kReturnLogits;
    }
    step.num_logit_rows = rows.num_logit_rows;
    for (int row = rows.first_logit_row - rows.position; row < num_rows; ++row) {
      frame->logit_rows.push_back(first_row + row);
    }
  } else if (rows.samples) {
    step.num_logit_rows = 1;
    frame->logit_rows.push_back(first_row + num_rows - 1);
  }
  if (step.num_logit_rows > 0) AppendDraw(*sequence, rows, first_row, &step, frame);
  frame->sequences.push_back(step);
  frame->block_ids.insert(frame->block_ids.end(), sequence->blocks.begin(), sequence->blocks.end());
  frame->tokens.insert(frame->tokens.end(), sequence->tokens.begin() + rows.position,
                       sequence->tokens.begin() + end);
  budget->rows -= num_rows;
  budget->sequences -= 1;
  budget->logit_rows -= step.num_logit_rows;
  if (IsDecode(*sequence)) {
    budget->work.AddDecode(rows.position);
  } else {
    budget->work.AddPrefill(rows.position, num_rows);
    pending_prefill_rows_ = std::max(0, pending_prefill_rows_ - num_rows);
  }
  sequence->num_computed_tokens = end;
  ++sequence->num_in_flight;
  if (rows.samples) sequence->tenant->service += FairQueue::kGeneratedTokenWeight;
  lanes_[lane].in_flight.push_back(rows);
}

// What the worker is to do with the sequence's logit rows. A sequence that waits for its mask has
// none from which a token is drawn.
void Scheduler::AppendDraw(const Sequence& sequence, const ScheduledRows& rows, int first_row,
                           transport::SequenceStep* step, transport::StepFrame* frame) const {
  for (size_t i = frame->targets.size(); i < frame->logit_rows.size(); ++i) {
    const int next = rows.position + frame->logit_rows[i] - first_row + 1;
    const bool known = rows.num_logit_rows > 0 && next < sequence.num_prompt_tokens;
    frame->targets.push_back(known ? sequence.tokens[next] : -1);
  }
  if (sequence.num_top_logprobs >= 0) {
    step->flags |= transport::SequenceStep::kLogprobs;
    step->num_top_logprobs = sequence.num_top_logprobs;
  }
  if (rows.samples && sequence.adjustments != nullptr) {
    step->num_adjustments = sequence.adjustments->Append(sequence.tokens, &frame->adjustments);
  }
  if (rows.samples && sequence.mask != nullptr && !sequence.mask->empty()) {
    step->flags |= transport::SequenceStep::kMasked;
    frame->masks.insert(frame->masks.end(), sequence.mask->begin(), sequence.mask->end());
    ++frame->header.num_masks;
  }
}

void Scheduler::SetRoute(absl::Span<const int> worker_of_segment, const StreamCost& stream) {
  model_.SetRoute(worker_of_segment);
  stream_choice_.SetRoute(stream);
}

void Scheduler::Observe(int lane, absl::Span<const uint32_t> segment_us, double round_trip_seconds,
                        bool alone) {
  if (!lanes_[lane].streams) {
    model_.Observe(lanes_[lane].work, segment_us, round_trip_seconds, alone);
  } else if (alone) {
    stream_choice_.Observe(lanes_[lane].work, round_trip_seconds);
  }
}

void Scheduler::CompleteStep(int lane) {
  for (const ScheduledRows& rows : lanes_[lane].in_flight) {
    if (!rows.sequence->failed) kv_.Confirm(rows.sequence, rows.position + rows.num_rows);
  }
  EndStep(lane);
}

void Scheduler::DropStep(int lane) {
  for (const ScheduledRows& rows : lanes_[lane].in_flight) {
    DT_CHECK(rows.sequence->removed);
    rows.sequence->failed = true;
  }
  EndStep(lane);
}

void Scheduler::EndStep(int lane_idx) {
  Lane& lane = lanes_[lane_idx];
  for (const ScheduledRows& rows : lane.in_flight) {
    if (--rows.sequence->num_in_flight == 0 && rows.sequence->removed) Erase(rows.sequence);
  }
  lane.in_flight.clear();
  lane.work = StepWork();
}

void Scheduler::LoseEpoch() {
  for (Lane& lane : lanes_) {
    for (const ScheduledRows& rows : lane.in_flight) {
      Sequence& sequence = *rows.sequence;
      sequence.num_logit_rows_sent -= rows.num_logit_rows;
      if (--sequence.num_in_flight > 0) continue;
      const bool came_on = sequence.num_tokens() != sequence.tokens_when_interrupted;
      sequence.num_interruptions = came_on ? 1 : sequence.num_interruptions + 1;
      sequence.tokens_when_interrupted = sequence.num_tokens();
    }
    lane.in_flight.clear();
    lane.work = StepWork();
  }
  for (Sequence* sequence : queue_.waiting()) kv_.Drop(sequence);
  while (!running_.empty()) {
    Sequence* sequence = running_.back();
    if (sequence->removed) {
      Erase(sequence);
      continue;
    }
    StopRunning(sequence);
    kv_.Drop(sequence);
    ++sequence->num_preemptions;
    ++counts_.interrupted;
    queue_.Push(sequence);
  }
  kv_.Forget();
}

void Scheduler::Remove(Sequence* sequence) {
  DT_CHECK(!sequence->removed);
  sequence->removed = true;
  if (sequence->num_preemptions == 0) growth_share_ *= kGrowthShareSinks;
  if (sequence->num_in_flight == 0) Erase(sequence);
}

void Scheduler::Erase(Sequence* sequence) {
  if (sequence->lane < 0) {
    queue_.Remove(sequence);
  } else {
    StopRunning(sequence);
  }
  kv_.Drop(sequence);
  queue_.Leave(sequence);
  sequences_.erase(sequence->id);
}

int Scheduler::num_swapped() const {
  return static_cast<int>(std::count_if(queue_.waiting().begin(), queue_.waiting().end(),
                                        [](const Sequence* s) { return !s->swapped.empty(); }));
}

int Scheduler::num_running() const {
  return static_cast<int>(std::count_if(running_.begin(), running_.end(),
                                        [](const Sequence* s) { return !s->removed; }));
}

absl::Duration Scheduler::PredictedWait() const {
  if (!model_.ready()) return absl::ZeroDuration();
  int64_t rows = 0;
  for (const Sequence* sequence : queue_.waiting()) rows += sequence->num_pending_tokens();
  StepWork chunk;
  chunk.AddPrefill(0, options_.chunk_size);
  return absl::Seconds(model_.BottleneckSeconds(chunk) * static_cast<double>(rows) /
                       options_.chunk_size);
}

absl::Duration Scheduler::PredictedPrefill(const Sequence& sequence) const {
  if (!model_.ready()) return absl::ZeroDuration();
  const int found = kv_.CountFound(sequence);
  StepWork work;
  work.AddPrefill(found, sequence.num_prompt_tokens - found);
  return absl::Seconds(model_.BottleneckSeconds(work));
}

absl::Status Scheduler::Audit() const {
  std::vector<const Sequence*> all(running_.begin(), running_.end());
  all.insert(all.end(), queue_.waiting().begin(), queue_.waiting().end());
  if (all.size() != sequences_.size()) {
    return absl::InternalError(
        absl::StrCat("there are ", sequences_.size(), " sequences, lists hold ", all.size()));
  }
  std::vector<int> lane_sizes(lanes_.size(), 0);
  for (const Sequence* sequence : all) {
    const bool waits = sequence->lane < 0;
    const int held = static_cast<int>(waits ? sequence->swapped.size() : sequence->blocks.size());
    const bool holds_other = waits ? !sequence->blocks.empty() : !sequence->swapped.empty();
    if (holds_other || sequence->num_computed_tokens > held * kKvBlockTokens ||
        sequence->num_confirmed_tokens > sequence->num_computed_tokens) {
      return absl::InternalError(absl::StrCat("sequence ", sequence->id, " holds ", held,
                                              " blocks for ", sequence->num_computed_tokens,
                                              " tokens, or some in the wrong place"));
    }
    if (!waits) ++lane_sizes[sequence->lane];
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lane_sizes[i] == lanes_[i].num_sequences && lane_sizes[i] <= lane_capacity_) continue;
    return absl::InternalError(absl::StrCat("lane ", i, " has ", lane_sizes[i],
                                            " sequences and counts ", lanes_[i].num_sequences));
  }
  return kv_.Audit(all);
}

}  // namespace dovetail::coordinator
