// The scheduler under random arrivals, cancels, slow and dying workers, with KV caches far too
// small, on a clock of its own: a million steps.
//
// After every action its invariants hold. Every sequence ends, with the right tokens, whatever was
// shared, copied, swapped, computed again or lost with a worker. Limits of rows, sequences, logits
// and time are kept; no token is computed twice without a reason; the first in rank is never
// preempted; all blocks are free in the end.
#include <deque>
#include <iostream>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "coordinator/scheduler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::FakeWorkers;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSteps = 30'000;
#else
constexpr uint64_t kSteps = 1'000'000;
#endif
constexpr int kVocab = 50;
constexpr int kHidden = 4;

struct Totals {
  uint64_t steps = 0;
  uint64_t swaps = 0;
  uint64_t recomputes = 0;
  uint64_t interrupted = 0;
  uint64_t copies = 0;
  uint64_t found_tokens = 0;
  int most_lanes = 0;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {
    StepShape& shape = options_.shape;
    shape.max_sequences = Pick(1, 6);
    shape.max_rows = Pick(1, 60);
    shape.max_logit_rows = Pick(1, 10);
    shape.context_length = Pick(33, 150);
    // Sometimes less than one context, sometimes room for several.
    shape.num_kv_blocks = Pick(1, 3 * shape.max_blocks_per_sequence());
    shape.num_swap_blocks = Pick(0, 1) * Pick(1, 12);
    options_.chunk_size = Pick(1, 60);
    options_.lanes = Pick(1, 4);
    options_.hidden_size = kHidden;
    options_.adaptive_lanes = Pick(0, 1) == 1;
    options_.token_target = absl::Milliseconds(Pick(1, 40));
    options_.preemption = static_cast<Preemption>(Pick(0, 2));
    options_.cost.block_copy_seconds = 1e-4;
    scheduler_ = std::make_unique<Scheduler>(options_);
    frame_.Reserve(shape);
    for (int worker = 0, count = Pick(1, 3); worker < count; ++worker) {
      route_.push_back(worker);
      speeds_.push_back(1e-4 * Pick(1, 30));
    }
    scheduler_->cost_model().SetRoute(route_);
    StartWorkers();
  }

  void Run(Totals* totals) {
    int to_arrive = Pick(1, 40);
    // Far above what any of these take; a scheduler that starves or locks up exceeds it.
    for (int round = 0; round < 200'000 && (to_arrive > 0 || !scheduler_->idle()); ++round) {
      while (to_arrive > 0 && (scheduler_->idle() || Pick(0, 5) == 0)) {
        --to_arrive;
        Arrive();
      }
      if (!live_.empty() && Pick(0, 60) == 0) Cancel();
      if (Pick(0, 300) == 0) KillWorkers();
      if (Pick(0, 100) == 0)
        speeds_[Pick(0, static_cast<int>(speeds_.size()) - 1)] *= Pick(1, 4) / 2.0;
      Advance();
      ASSERT_OK(scheduler_->Audit());
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_TRUE(scheduler_->idle()) << "every sequence ends";
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(scheduler_->pool().num_used(), 0);
    EXPECT_EQ(scheduler_->kv().num_swap_used(), 0);
    EXPECT_EQ(scheduler_->num_tenants(), 0);
    CollectErrors();
    EXPECT_EQ(computed_rows_, first_rows_ + repeated_rows_);
    const SchedulerCounts& counts = scheduler_->counts();
    EXPECT_TRUE(repeated_rows_ == 0 || counts.recomputes + counts.swaps + counts.interrupted > 0)
        << "a token was computed twice without a reason";
    totals->steps += num_steps_;
    totals->swaps += counts.swaps;
    totals->recomputes += counts.recomputes;
    totals->interrupted += counts.interrupted;
    totals->copies += copies_;
    totals->found_tokens += scheduler_->kv().num_found_tokens();
    totals->most_lanes = std::max(totals->most_lanes, scheduler_->decode_lanes());
  }

 private:
  struct Live {
    std::vector<int32_t> prompt;
    int max_total = 0;
    int highest = 0;  // tokens computed at least once, by it or by another
    int next = -1;    // where the next rows must begin; -1: not admitted
    int preemptions = 0;
    int logit_rows = 0;  // delivered
    bool logits = false;
  };
  struct Flight {
    int lane;
    absl::Time sent;
    absl::Time back;
    std::vector<uint32_t> segment_us;
    transport::StepOutput output;
  };

  int Pick(int low, int high) {
    return low + static_cast<int>(random_() % static_cast<uint64_t>(high - low + 1));
  }

  void StartWorkers() {
    workers_ = std::make_shared<FakeWorkers>(options_.shape, kVocab, kHidden, ++epoch_);
  }

  void CollectErrors() {
    EXPECT_THAT(workers_->errors(), ::testing::IsEmpty());
    computed_rows_ += workers_->num_rows();
    copies_ += workers_->num_copies();
  }

  // All steps in flight and everything that the workers hold are gone.
  void KillWorkers() {
    CollectErrors();
    StartWorkers();
    flights_.clear();
    scheduler_->LoseEpoch();
    EXPECT_EQ(scheduler_->pool().num_used(), 0);
    EXPECT_EQ(scheduler_->num_running(), 0);
    now_ += absl::Seconds(Pick(0, 2));
  }

  void Arrive() {
    Live live;
    live.prompt.resize(Pick(1, options_.shape.context_length));
    // Few beginnings, so that some are shared.
    const int shared = Pick(0, options_.shape.context_length);
    const int kind = Pick(1, 2);
    for (size_t i = 0; i < live.prompt.size(); ++i) {
      live.prompt[i] = static_cast<int>(i) < shared ? kind : Pick(0, kVocab - 1);
    }
    live.logits = Pick(0, 3) == 0;
    const int max_tokens = live.logits && Pick(0, 1) == 0 ? 0 : Pick(1, 80);
    const int num_prompt = static_cast<int>(live.prompt.size());
    if (!scheduler_->CheckFits(num_prompt, max_tokens).ok()) return;
    live.max_total = scheduler_->MaxTotalTokens(num_prompt, max_tokens);
    auto sequence = std::make_unique<Sequence>();
    sequence->id = ++last_id_;
    sequence->tokens = live.prompt;
    sequence->num_prompt_tokens = num_prompt;
    sequence->max_total_tokens = live.max_total;
    sequence->wants_logits = live.logits;
    sequence->tenant_name = std::string(1, static_cast<char>('a' + Pick(0, 2)));
    sequence->priority = Pick(0, 5) == 0 ? Pick(-2, 2) : 0;
    if (Pick(0, 4) == 0) sequence->salt = MakeCacheSalt(sequence->tenant_name);
    scheduler_->Add(std::move(sequence), now_);
    live_[last_id_] = std::move(live);
  }

  void Cancel() {
    auto it = live_.begin();
    std::advance(it, Pick(0, static_cast<int>(live_.size()) - 1));
    Sequence* sequence = scheduler_->Find(it->first);
    ASSERT_NE(sequence, nullptr);
    scheduler_->Remove(sequence);
    live_.erase(it);
  }

  // Schedules idle lanes; then one or more steps come back, in the order in which they were sent.
  void Advance() {
    for (int lane = 0; lane < options_.lanes; ++lane) {
      if (scheduler_->in_flight(lane).empty()) ScheduleLane(lane);
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_TRUE(!flights_.empty() || scheduler_->idle()) << "work, but no step" << Describe();
    for (int count = Pick(1, 3); count > 0 && !flights_.empty(); --count) {
      now_ = std::max(now_, flights_.front().back);
      Complete();
      if (::testing::Test::HasFatalFailure()) return;
    }
    if (scheduler_->idle()) now_ += absl::Milliseconds(Pick(1, 40'000));
  }

  void ScheduleLane(int lane) {
    const Sequence* first = FirstInRank();
    const int preemptions = first == nullptr ? 0 : first->num_preemptions;
    const bool anybody_decodes = AnybodyDecodes();
    if (scheduler_->Schedule(lane, now_, &frame_)) {
      CheckFrame(lane, anybody_decodes);
      Send(lane);
    }
    EXPECT_TRUE(first == nullptr || first->num_preemptions == preemptions)
        << "the first in rank always progresses";
  }

  std::string Describe() {
    std::string text = absl::StrCat("\n", scheduler_->pool().num_free(), " blocks free, ",
                                    scheduler_->kv().num_swap_free(), " to swap to, ",
                                    scheduler_->decode_lanes(), " of ", options_.lanes, " lanes");
    for (const auto& [id, live] : live_) {
      const Sequence& s = *scheduler_->Find(id);
      absl::StrAppend(&text, "\n  ", id, ": lane ", s.lane, ", ", s.num_computed_tokens, " of ",
                      s.num_tokens(), " computed, prompt ", s.num_prompt_tokens, ", ",
                      s.blocks.size(), " blocks, ", s.swapped.size(), " swapped, ", s.num_in_flight,
                      " in flight, ", s.wants_logits ? "logits" : "");
    }
    return text;
  }

  const Sequence* FirstInRank() {
    const Sequence* first = nullptr;
    const auto rank = [](const Sequence& s) {
      return std::make_pair(s.arrival + s.priority * SchedulerOptions().aging, s.id);
    };
    for (const auto& [id, live] : live_) {
      const Sequence* sequence = scheduler_->Find(id);
      if (sequence->lane < 0) continue;
      if (first == nullptr || rank(*sequence) < rank(*first)) first = sequence;
    }
    return first;
  }

  bool AnybodyDecodes() {
    return std::any_of(live_.begin(), live_.end(), [this](const auto& entry) {
      const Sequence* sequence = scheduler_->Find(entry.first);
      return sequence->lane >= 0 && sequence->prompt_confirmed();
    });
  }

  void Send(int lane) {
    frame_.header.epoch = epoch_;
    frame_.header.step = ++num_steps_;
    Flight flight{lane, now_, now_, {}, workers_->Compute(frame_)};
    const StepWork& work = scheduler_->work(lane);
    double busy = 0;
    for (double speed : speeds_) {
      const double seconds =
          speed * (1 + 0.1 * work.decode_rows + 0.2 * work.prefill_rows + 0.01 * work.copies) *
          Pick(90, 110) / 100.0;
      flight.segment_us.push_back(static_cast<uint32_t>(1e6 * seconds));
      busy += seconds;
    }
    const absl::Time before = flights_.empty() ? now_ : flights_.back().back;
    flight.back = std::max(before, now_ + absl::Seconds(busy));
    flights_.push_back(std::move(flight));
  }

  void CheckFrame(int lane, bool anybody_decodes) {
    const StepShape& shape = options_.shape;
    EXPECT_LE(static_cast<int>(frame_.tokens.size()), shape.max_rows);
    EXPECT_LE(static_cast<int>(frame_.sequences.size()), shape.max_sequences);
    EXPECT_LE(static_cast<int>(frame_.logit_rows.size()), shape.max_logit_rows);
    EXPECT_LE(static_cast<int>(frame_.copies.size()), shape.max_block_copies());
    int prefill_rows = 0;
    bool prefill_seen = false;
    for (const ScheduledRows& rows : scheduler_->in_flight(lane)) {
      const Sequence& sequence = *rows.sequence;
      ASSERT_EQ(live_.count(sequence.id), 1u) << "a step computes nothing for the dead";
      CheckRows(rows, &live_[sequence.id]);
      const bool is_decode = rows.position >= sequence.num_prompt_tokens && rows.num_rows == 1;
      EXPECT_FALSE(prefill_seen && is_decode && sequence.num_preemptions == 0)
          << "decodes come first";
      if (is_decode) continue;
      prefill_rows += rows.num_rows;
      prefill_seen = true;
    }
    EXPECT_LE(prefill_rows, options_.chunk_size);
    const CostModel& model = scheduler_->cost_model();
    if (!anybody_decodes || !model.ready() || prefill_rows <= kKvBlockTokens) return;
    StepWork all = scheduler_->work(lane);
    all.copies = 0;
    StepWork decodes;
    decodes.decode_rows = all.decode_rows;
    decodes.attended = all.attended;  // at most
    const double limit = std::max(absl::ToDoubleSeconds(options_.token_target),
                                  2 * model.BottleneckSeconds(decodes));
    EXPECT_LE(model.BottleneckSeconds(all), limit * 1.0001) << "the time of a step is limited";
  }

  void CheckRows(const ScheduledRows& rows, Live* live) {
    const Sequence& sequence = *rows.sequence;
    if (sequence.num_preemptions != live->preemptions) {
      live->preemptions = sequence.num_preemptions;
      live->next = -1;
    }
    if (live->next < 0) {  // admitted: what it found, copied or had swapped out is skipped
      live->highest = std::max(live->highest, rows.position);
    } else {
      EXPECT_EQ(rows.position, live->next) << "no gap, no repetition";
    }
    live->next = rows.position + rows.num_rows;
    const int fresh = std::max(0, live->next - std::max(live->highest, rows.position));
    first_rows_ += fresh;
    repeated_rows_ += rows.num_rows - fresh;
    live->highest = std::max(live->highest, live->next);
    EXPECT_LE(live->next, std::max(sequence.num_prompt_tokens, live->max_total - 1))
        << "the last token is not computed";
  }

  void Complete() {
    const Flight flight = std::move(flights_.front());
    flights_.pop_front();
    size_t output_idx = 0;
    for (const ScheduledRows& rows : scheduler_->in_flight(flight.lane)) {
      const transport::SequenceOutput& output = flight.output.sequences[output_idx++];
      Sequence* sequence = rows.sequence;
      ASSERT_EQ(output.sequence_id, sequence->id);
      if (sequence->removed) continue;
      Live& live = live_[sequence->id];
      EXPECT_EQ(output.num_logit_rows, rows.num_logit_rows);
      EXPECT_TRUE(rows.num_logit_rows == 0 || rows.first_logit_row == live.logit_rows);
      live.logit_rows += rows.num_logit_rows;
      if (rows.samples) sequence->tokens.push_back(output.token);
      const bool ended = rows.samples
                             ? sequence->num_tokens() >= live.max_total
                             : rows.position + rows.num_rows >= sequence->num_prompt_tokens &&
                                   !sequence->samples();
      if (ended) Finish(sequence);
    }
    scheduler_->cost_model().Observe(scheduler_->work(flight.lane), flight.segment_us,
                                     absl::ToDoubleSeconds(now_ - flight.sent), flights_.empty());
    scheduler_->CompleteStep(flight.lane);
  }

  void Finish(Sequence* sequence) {
    const Live& live = live_[sequence->id];
    const int generated = live.max_total - static_cast<int>(live.prompt.size());
    const std::vector<int32_t> answer(
        sequence->tokens.begin() + static_cast<std::ptrdiff_t>(live.prompt.size()),
        sequence->tokens.end());
    EXPECT_EQ(answer, FakeWorkers::Continue(live.prompt, generated, kVocab));
    EXPECT_EQ(live.logit_rows, live.logits ? static_cast<int>(live.prompt.size()) : 0);
    live_.erase(sequence->id);
    scheduler_->Remove(sequence);
  }

  std::mt19937_64 random_;
  SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::shared_ptr<FakeWorkers> workers_;
  std::vector<int> route_;
  std::vector<double> speeds_;  // seconds of an empty step, by worker
  transport::StepFrame frame_;
  std::map<uint64_t, Live> live_;
  std::deque<Flight> flights_;
  absl::Time now_ = absl::UnixEpoch();
  uint64_t epoch_ = 0;
  uint64_t last_id_ = 0;
  uint64_t num_steps_ = 0;
  int computed_rows_ = 0;
  int copies_ = 0;
  int first_rows_ = 0;
  int repeated_rows_ = 0;
};

TEST(SchedulerPropertyTest, EverySequenceEndsWithTheRightTokens) {
  const uint64_t seed = testing::TestSeed();
  Totals totals;
  for (uint64_t round = 0; totals.steps < kSteps; ++round) {
    SCOPED_TRACE(::testing::Message() << "simulation seed " << seed + round);
    Simulation simulation(seed + round);
    simulation.Run(&totals);
    if (::testing::Test::HasFailure()) return;
  }
  std::cout << totals.steps << " steps, " << totals.swaps << " swaps, " << totals.recomputes
            << " recomputations, " << totals.interrupted << " interrupted, " << totals.copies
            << " block copies, " << totals.found_tokens << " tokens found, up to "
            << totals.most_lanes << " lanes\n";
  // The caches must be tight enough, and the workers mortal enough, to test all of it.
  const uint64_t few = totals.steps / 10'000;
  EXPECT_GT(totals.swaps, few);
  EXPECT_GT(totals.recomputes, few);
  EXPECT_GT(totals.interrupted, few);
  EXPECT_GT(totals.copies, few);
  EXPECT_GT(totals.found_tokens, 10 * few);
  EXPECT_GT(totals.most_lanes, 1);
}

}  // namespace
}  // namespace dovetail::coordinator
