// Scheduler: who runs, and in which lane.
#include <algorithm>

#include "base/check.h"
#include "coordinator/scheduler.h"

namespace dovetail::coordinator {
namespace {

constexpr double kMostGrowthShare = 0.7;
constexpr double kGrowthShareRises = 0.1;  // with a preemption
constexpr int kForeseenTokens = 4096;      // of one sequence
constexpr int kForeseenChunks = 16;        // of prompts that wait

}  // namespace

void Scheduler::ChooseLanes() {
  int decodes = 0;
  int64_t attended = 0;
  int prefill_rows = 0;
  for (const Sequence* sequence : running_) {
    if (sequence->removed) continue;
    if (sequence->prompt_confirmed()) {
      ++decodes;
      attended += sequence->num_tokens();
    } else {
      prefill_rows += sequence->num_pending_tokens();
    }
  }
  for (const Sequence* sequence : queue_.waiting()) {
    if (prefill_rows >= kForeseenChunks * options_.chunk_size) break;
    prefill_rows += sequence->num_pending_tokens();
  }
  pending_prefill_rows_ = prefill_rows;
  lane_choice_.Update(model_, decodes, decodes > 0 ? static_cast<double>(attended) / decodes : 0,
                      std::min(prefill_rows, options_.chunk_size));
}

int Scheduler::SmallestLane() const {
  int smallest = 0;
  for (int i = 1; i < lane_choice_.decode_lanes(); ++i) {
    if (lanes_[i].num_sequences < lanes_[smallest].num_sequences) smallest = i;
  }
  return smallest;
}

void Scheduler::EnterLane(Sequence* sequence, int lane) {
  if (sequence->lane >= 0) --lanes_[sequence->lane].num_sequences;
  sequence->lane = lane;
  if (lane >= 0) ++lanes_[lane].num_sequences;
}

// A lane is only where a sequence's next token is computed, so it may be changed at any time: lanes
// that are used differ by at most one afterwards, and the others become empty.
void Scheduler::Rebalance() {
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    const int to = SmallestLane();
    const int size = lanes_[to].num_sequences;
    if (size >= lane_capacity_) return;
    const int lane = (*it)->lane;
    if (lane >= lane_choice_.decode_lanes() || lanes_[lane].num_sequences > size + 1) {
      EnterLane(*it, to);
    }
  }
}

bool Scheduler::AnyInFlight() const {
  return std::any_of(lanes_.begin(), lanes_.end(),
                     [](const Lane& lane) { return !lane.in_flight.empty(); });
}

int64_t Scheduler::RankOf(const Sequence& sequence) const {
  return absl::ToUnixMicros(sequence.arrival) +
         sequence.priority * absl::ToInt64Microseconds(options_.aging);
}

bool Scheduler::Outranks(const Sequence& a, const Sequence& b) const {
  const int64_t rank_a = RankOf(a);
  const int64_t rank_b = RankOf(b);
  return rank_a != rank_b ? rank_a < rank_b : a.id < b.id;
}

void Scheduler::StartRunning(Sequence* sequence) {
  EnterLane(sequence, SmallestLane());
  const auto before = [this](const Sequence* a, const Sequence* b) { return Outranks(*a, *b); };
  running_.insert(std::upper_bound(running_.begin(), running_.end(), sequence, before), sequence);
}

void Scheduler::StopRunning(Sequence* sequence) {
  EnterLane(sequence, -1);
  auto it = std::find(running_.begin(), running_.end(), sequence);
  DT_CHECK(it != running_.end());
  running_.erase(it);
}

// The next sequence that waits starts to run; nullptr if none can.
Sequence* Scheduler::Admit(absl::Time now) {
  if (lanes_[SmallestLane()].num_sequences >= lane_capacity_) return nullptr;
  Sequence* sequence =
      queue_.Next(now, [this](const Sequence& candidate) { return MayBegin(candidate); });
  if (sequence == nullptr) return nullptr;
  const bool is_new = sequence->num_cached_tokens < 0;
  if (!kv_.Begin(sequence, SpareBlocks(*sequence), running_)) {
    if (!running_.empty()) return nullptr;
    // All blocks are free: only copies were too many. What is swapped out is computed again.
    kv_.Drop(sequence);
    DT_CHECK(kv_.Begin(sequence, 0, running_));
  }
  if (is_new) {
    sequence->admitted = now;
    sequence->tenant->service += sequence->num_prompt_tokens - sequence->num_cached_tokens;
  }
  queue_.Remove(sequence);
  StartRunning(sequence);
  return sequence;
}

// Not while another one computes its beginning, which it will find then.
bool Scheduler::MayBegin(const Sequence& sequence) const {
  if (sequence.num_preemptions > 0 || sequence.wants_logits) return true;
  int found = -1;
  for (const Sequence* other : running_) {
    if (other->removed || other->prompt_confirmed() || !(other->salt == sequence.salt)) continue;
    const int most = std::min(sequence.num_tokens() - 1, other->num_prompt_tokens);
    const auto differs = std::mismatch(sequence.tokens.begin(), sequence.tokens.begin() + most,
                                       other->tokens.begin());
    const int same = static_cast<int>(differs.first - sequence.tokens.begin());
    if (same < kKvBlockTokens) continue;
    if (found < 0) found = kv_.CountFound(sequence);
    if (same / kKvBlockTokens * kKvBlockTokens > found) return false;
  }
  return true;
}

// Blocks that stay free beside those of the admitted sequence's tokens.
int Scheduler::SpareBlocks(const Sequence& sequence) const {
  const int tokens = BlockPool::BlocksFor(sequence.num_tokens());
  const int own = std::min(1, BlockPool::BlocksFor(sequence.max_computed_tokens()) - tokens);
  double growth = 0;
  for (const Sequence* other : running_) {
    const int left = other->max_computed_tokens() - other->num_computed_tokens;
    growth += growth_share_ * std::min(left, kForeseenTokens) / kKvBlockTokens;
  }
  return running_.empty() ? own : own + static_cast<int>(growth);
}

// Makes room for one more token. False when the sequence must wait or was preempted itself.
bool Scheduler::GrowBlocks(Sequence* sequence) {
  while (!kv_.Grow(sequence)) {
    Sequence* victim = LowestIdle();
    DT_CHECK(victim != nullptr);  // at least the sequence itself
    if (victim == sequence) {
      // Everything of a lower rank is in flight. Its blocks may come back without a preemption, and
      // the sequence is asked again when a step is over.
      if (!AnyInFlight()) Preempt(sequence);
      return false;
    }
    Preempt(victim);
  }
  return true;
}

Sequence* Scheduler::LowestIdle() const {
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    if ((*it)->num_in_flight == 0) return *it;
  }
  return nullptr;
}

void Scheduler::Preempt(Sequence* sequence) {
  DT_CHECK_EQ(sequence->num_in_flight, 0);
  StopRunning(sequence);
  if (ShouldSwap(*sequence)) {
    kv_.SwapOut(sequence);
    ++counts_.swaps;
  } else {
    kv_.Drop(sequence);
    ++counts_.recomputes;
  }
  ++sequence->num_preemptions;
  growth_share_ = std::min(kMostGrowthShare, growth_share_ + kGrowthShareRises);
  queue_.Push(sequence);
}

bool Scheduler::ShouldSwap(const Sequence& sequence) const {
  if (options_.preemption == Preemption::kRecompute || !kv_.CanSwapOut(sequence)) return false;
  if (options_.preemption == Preemption::kSwap || !model_.ready()) return true;
  StepWork again;
  again.AddPrefill(0, sequence.num_computed_tokens);
  const int blocks = BlockPool::BlocksFor(sequence.num_computed_tokens);
  return 2 * blocks * model_.block_copy_seconds() < model_.BottleneckSeconds(again);
}

}  // namespace dovetail::coordinator
