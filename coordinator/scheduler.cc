#include "coordinator/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail::coordinator {
namespace {

bool ArrivedBefore(const Sequence* a, const Sequence* b) { return a->id < b->id; }

void InsertByArrival(std::vector<Sequence*>* list, Sequence* sequence) {
  list->insert(std::upper_bound(list->begin(), list->end(), sequence, ArrivedBefore), sequence);
}

void EraseFrom(std::vector<Sequence*>* list, Sequence* sequence) {
  auto it = std::find(list->begin(), list->end(), sequence);
  DT_CHECK(it != list->end());
  list->erase(it);
}

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
      pool_(options.shape.num_kv_blocks),
      lanes_(options.lanes) {
  DT_CHECK_GT(options.lanes, 0);
  DT_CHECK_GT(options.chunk_size, 0);
  DT_CHECK_GT(options.shape.context_length, 0);
  DT_CHECK_GT(lane_capacity_, 0);
  for (Lane& lane : lanes_) {
    lane.running.reserve(lane_capacity_ + 1);
    lane.in_flight.reserve(lane_capacity_);
  }
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

Sequence* Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  Sequence* added = sequence.get();
  DT_CHECK(added->num_tokens() > 0 && added->num_tokens() == added->num_prompt_tokens);
  DT_CHECK(added->max_total_tokens >= added->num_prompt_tokens &&
           added->max_total_tokens <= max_tokens_);
  DT_CHECK(sequences_.emplace(added->id, std::move(sequence)).second);
  InsertByArrival(&waiting_, added);
  return added;
}

Sequence* Scheduler::Find(uint64_t id) {
  auto it = sequences_.find(id);
  return it == sequences_.end() || it->second->removed ? nullptr : it->second.get();
}

bool Scheduler::Schedule(int lane_idx, transport::StepFrame* frame) {
  Lane& lane = lanes_[lane_idx];
  DT_CHECK(lane.in_flight.empty());
  frame->Clear();
  frame->header = transport::StepHeader();
  Rebalance(lane_idx);

  Budget budget;
  budget.rows = options_.shape.max_rows;
  budget.logit_rows = options_.shape.max_logit_rows;
  ScheduleDecodes(lane_idx, &budget, frame);
  budget.prefill_rows = std::min(options_.chunk_size, budget.rows);
  for (Sequence* sequence : lane.running) {
    if (!sequence->in_flight && sequence->num_pending_tokens() > 0 && !IsDecode(*sequence)) {
      SchedulePrefill(sequence, &budget, frame);
    }
  }
  while (budget.prefill_rows > 0) {
    Sequence* admitted = Admit(lane_idx);
    if (admitted == nullptr) break;
    SchedulePrefill(admitted, &budget, frame);
  }
  if (lane.in_flight.empty()) return false;

  transport::StepHeader& header = frame->header;
  header.lane = static_cast<uint32_t>(lane_idx);
  header.num_sequences = static_cast<uint32_t>(frame->sequences.size());
  header.num_rows = static_cast<uint32_t>(frame->tokens.size());
  header.num_block_ids = static_cast<uint32_t>(frame->block_ids.size());
  header.num_logit_rows = static_cast<uint32_t>(frame->logit_rows.size());
  header.num_adjustments = static_cast<uint32_t>(frame->adjustments.size());
  header.hidden_size = static_cast<uint32_t>(options_.hidden_size);
  return true;
}

void Scheduler::ScheduleDecodes(int lane_idx, Budget* budget, transport::StepFrame* frame) {
  Lane& lane = lanes_[lane_idx];
  // A preemption takes this sequence or newer ones out of `running`, so walking by index stays
  // right.
  for (size_t i = 0; i < lane.running.size();) {
    Sequence* sequence = lane.running[i];
    if (IsDecode(*sequence) && !sequence->waits_for_mask && GrowBlocks(sequence))
      AppendRows(sequence, 1, budget, frame);
    if (sequence->lane == lane_idx) ++i;
  }
}

// Makes room for one more token. False when the sequence must wait or was preempted itself.
bool Scheduler::GrowBlocks(Sequence* sequence) {
  if (sequence->num_computed_tokens < static_cast<int>(sequence->blocks.size()) * kKvBlockTokens) {
    return true;
  }
  while (!pool_.Allocate(1, &sequence->blocks)) {
    Sequence* victim = NewestIdle();
    DT_CHECK(victim != nullptr);  // at least the sequence itself
    if (victim == sequence) {
      // Everything newer is in flight. If anything is, its blocks may come back without a
      // preemption, and the sequence is asked again when that step is over.
      const bool others_in_flight = std::any_of(
          lanes_.begin(), lanes_.end(), [](const Lane& lane) { return !lane.in_flight.empty(); });
      if (!others_in_flight) Preempt(sequence);
      return false;
    }
    Preempt(victim);
  }
  return true;
}

Sequence* Scheduler::NewestIdle() const {
  Sequence* newest = nullptr;
  for (const Lane& lane : lanes_) {
    for (Sequence* sequence : lane.running) {
      if (sequence->in_flight || (newest != nullptr && ArrivedBefore(sequence, newest))) continue;
      newest = sequence;
    }
  }
  return newest;
}

void Scheduler::Preempt(Sequence* sequence) {
  DT_CHECK(!sequence->in_flight);
  LeaveLane(sequence);
  sequence->num_computed_tokens = 0;
  ++sequence->num_preemptions;
  ++num_preemptions_;
  InsertByArrival(&waiting_, sequence);
}

void Scheduler::LeaveLane(Sequence* sequence) {
  EraseFrom(&lanes_[sequence->lane].running, sequence);
  sequence->lane = -1;
  pool_.Release(sequence->blocks);
  sequence->blocks.clear();
  sequence->num_cached_blocks = 0;
  sequence->cached_node = kNoPrefix;
}

int Scheduler::SmallestLane() const {
  int smallest = 0;
  for (int i = 1; i < options_.lanes; ++i) {
    if (lanes_[i].running.size() < lanes_[smallest].running.size()) smallest = i;
  }
  return smallest;
}

// Nothing of this lane is in flight, so its sequences may move: lanes differ by at most one
// afterwards.
void Scheduler::Rebalance(int lane_idx) {
  std::vector<Sequence*>& running = lanes_[lane_idx].running;
  for (int to = SmallestLane(); running.size() > lanes_[to].running.size() + 1;
       to = SmallestLane()) {
    Sequence* moved = running.back();
    running.pop_back();
    moved->lane = to;
    InsertByArrival(&lanes_[to].running, moved);
  }
}

Sequence* Scheduler::Admit(int lane_idx) {
  std::vector<Sequence*>& running = lanes_[lane_idx].running;
  if (waiting_.empty() || static_cast<int>(running.size()) >= lane_capacity_ ||
      running.size() > lanes_[SmallestLane()].running.size()) {
    return nullptr;
  }
  Sequence* sequence = waiting_.front();
  if (!TakeBlocks(sequence)) return nullptr;
  waiting_.erase(waiting_.begin());
  sequence->lane = lane_idx;
  InsertByArrival(&running, sequence);
  return sequence;
}

// Blocks that hold the sequence's first tokens already, and free ones for the rest. False, with
// none taken, when too few are free.
bool Scheduler::TakeBlocks(Sequence* sequence) {
  const int most = BlockPool::BlocksFor(MaxComputedTokens(*sequence));
  const bool logits_left =
      sequence->wants_logits && sequence->num_logit_rows_sent < sequence->num_prompt_tokens;
  const int reusable = logits_left
                           ? std::min(sequence->num_logit_rows_sent, sequence->num_tokens() - 1)
                           : sequence->num_tokens() - 1;
  std::vector<BlockId>& blocks = sequence->blocks;
  blocks.reserve(most);
  const PrefixNode node =
      pool_.Match(sequence->salt, sequence->tokens, reusable / kKvBlockTokens, &blocks);
  const int found = static_cast<int>(blocks.size());
  const int wanted = BlockPool::BlocksFor(sequence->num_tokens()) - found;
  if (pool_.num_free() < std::min(wanted + 1, most - found)) {
    pool_.Release(blocks);
    blocks.clear();
    return false;
  }
  DT_CHECK(pool_.Allocate(wanted, &blocks));
  sequence->num_computed_tokens = found * kKvBlockTokens;
  sequence->num_cached_blocks = found;
  sequence->cached_node = node;
  if (sequence->num_cached_tokens < 0) {
    sequence->num_cached_tokens = sequence->num_computed_tokens;
    num_queried_tokens_ += sequence->num_prompt_tokens;
    num_cached_tokens_ += sequence->num_cached_tokens;
  }
  return true;
}

// The last token that is generated is not computed any more.
int Scheduler::MaxComputedTokens(const Sequence& sequence) const {
  return std::max(sequence.num_prompt_tokens, sequence.max_total_tokens - 1);
}

void Scheduler::SchedulePrefill(Sequence* sequence, Budget* budget, transport::StepFrame* frame) {
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
  if (num_rows <= 0) return;
  budget->prefill_rows -= num_rows;
  AppendRows(sequence, num_rows, budget, frame);
}

void Scheduler::AppendRows(Sequence* sequence, int num_rows, Budget* budget,
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
    if (sequence->num_top_logprobs < 0) step.flags |= transport::SequenceStep::kReturnLogits;
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
  budget->logit_rows -= step.num_logit_rows;
  sequence->num_computed_tokens = end;
  sequence->in_flight = true;
  lanes_[sequence->lane].in_flight.push_back(rows);
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

void Scheduler::CompleteStep(int lane) {
  for (const ScheduledRows& rows : lanes_[lane].in_flight) CacheBlocks(rows);
  EndStep(lane);
}

void Scheduler::DropStep(int lane) { EndStep(lane); }

// Makes the blocks that are full now findable.
void Scheduler::CacheBlocks(const ScheduledRows& rows) {
  Sequence& sequence = *rows.sequence;
  const int full = (rows.position + rows.num_rows) / kKvBlockTokens;
  for (int i = sequence.num_cached_blocks; i < full; ++i) {
    const auto tokens =
        absl::MakeConstSpan(sequence.tokens).subspan(i * kKvBlockTokens, kKvBlockTokens);
    sequence.cached_node =
        pool_.Cache(sequence.blocks[i], sequence.cached_node, sequence.salt, tokens);
  }
  sequence.num_cached_blocks = std::max(sequence.num_cached_blocks, full);
}

void Scheduler::EndStep(int lane_idx) {
  Lane& lane = lanes_[lane_idx];
  for (const ScheduledRows& rows : lane.in_flight) rows.sequence->in_flight = false;
  for (const ScheduledRows& rows : lane.in_flight) {
    if (rows.sequence->removed) Erase(rows.sequence);
  }
  lane.in_flight.clear();
}

void Scheduler::Remove(Sequence* sequence) {
  DT_CHECK(!sequence->removed);
  sequence->removed = true;
  if (!sequence->in_flight) Erase(sequence);
}

void Scheduler::Erase(Sequence* sequence) {
  if (sequence->lane < 0) {
    EraseFrom(&waiting_, sequence);
  } else {
    LeaveLane(sequence);
  }
  sequences_.erase(sequence->id);
}

int Scheduler::num_running() const {
  int count = 0;
  for (const Lane& lane : lanes_) {
    count += static_cast<int>(std::count_if(lane.running.begin(), lane.running.end(),
                                            [](const Sequence* s) { return !s->removed; }));
  }
  return count;
}

absl::Status Scheduler::Audit() const {
  size_t num_seen = waiting_.size();
  std::vector<int> holders(pool_.num_blocks(), 0);
  for (const Sequence* sequence : waiting_) {
    if (sequence->lane != -1 || !sequence->blocks.empty() || sequence->num_computed_tokens != 0) {
      return absl::InternalError(
          absl::StrCat("waiting sequence ", sequence->id, " holds a lane or blocks"));
    }
  }
  for (int i = 0; i < options_.lanes; ++i) {
    num_seen += lanes_[i].running.size();
    if (static_cast<int>(lanes_[i].running.size()) > lane_capacity_) {
      return absl::InternalError(absl::StrCat("lane ", i, " is too full"));
    }
    for (const Sequence* sequence : lanes_[i].running) {
      for (BlockId block : sequence->blocks) ++holders[block];
      if (sequence->lane != i || sequence->num_computed_tokens >
                                     static_cast<int>(sequence->blocks.size()) * kKvBlockTokens) {
        return absl::InternalError(
            absl::StrCat("sequence ", sequence->id, " lacks lane or blocks"));
      }
    }
  }
  if (num_seen != sequences_.size()) {
    return absl::InternalError(
        absl::StrCat("there are ", sequences_.size(), " sequences, lists hold ", num_seen));
  }
  for (BlockId block = 0; block < pool_.num_blocks(); ++block) {
    if (holders[block] == pool_.ref_count(block)) continue;
    return absl::InternalError(absl::StrCat("block ", block, " has ", pool_.ref_count(block),
                                            " references, ", holders[block], " sequences hold it"));
  }
  return pool_.Audit();
}

}  // namespace dovetail::coordinator
