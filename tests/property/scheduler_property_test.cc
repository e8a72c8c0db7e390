// The scheduler under random arrivals, cancels and slow lanes, with KV caches far too small.
//
// After every action its invariants hold; every sequence ends, with the right tokens; the budget is
// kept; no token is computed twice without a preemption; all blocks are free in the end.
#include <map>
#include <random>

#include "coordinator/scheduler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::FakeWorkers;

constexpr int kVocab = 50;

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {
    shape_.max_sequences = Pick(1, 6);
    shape_.max_rows = Pick(1, 40);
    shape_.max_logit_rows = Pick(1, 10);
    shape_.context_length = Pick(33, 150);
    // Sometimes less than one context, sometimes room for several.
    shape_.num_kv_blocks = Pick(1, 3 * shape_.max_blocks_per_sequence());
    options_ = {shape_, Pick(1, 40), Pick(1, 3), 4};
    scheduler_ = std::make_unique<Scheduler>(options_);
    workers_ = std::make_shared<FakeWorkers>(shape_, kVocab, 4);
    in_flight_.resize(options_.lanes);
    frame_.Reserve(shape_);
  }

  void Run() {
    int to_arrive = Pick(1, 25);
    int idle_rounds = 0;
    // Far above what any of these take; a scheduler that starves or locks up exceeds it.
    for (int round = 0; round < 200'000 && (to_arrive > 0 || !scheduler_->idle()); ++round) {
      if (to_arrive > 0 && Pick(0, 3) == 0) {
        --to_arrive;
        Arrive();
      }
      if (!live_.empty() && Pick(0, 60) == 0) Cancel();
      const bool progressed = Advance();
      idle_rounds = progressed || to_arrive > 0 ? 0 : idle_rounds + 1;
      ASSERT_LT(idle_rounds, 50) << "nothing moves any more";
      ASSERT_OK(scheduler_->Audit());
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_TRUE(scheduler_->idle()) << "every sequence ends";
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(scheduler_->pool().num_used(), 0);
    EXPECT_THAT(workers_->errors(), ::testing::IsEmpty());
    EXPECT_EQ(workers_->num_rows(), first_rows_ + repeated_rows_);
    EXPECT_TRUE(repeated_rows_ == 0 || scheduler_->num_preemptions() > 0)
        << "a token was computed twice without a preemption";
  }

  uint64_t num_preemptions() const { return scheduler_->num_preemptions(); }

 private:
  struct Live {
    std::vector<int32_t> prompt;
    int max_total = 0;
    int highest = 0;  // tokens computed at least once
    int next = -1;    // where the next rows must begin; -1: not admitted
    int preemptions = 0;
    int logit_rows = 0;
    bool logits = false;
  };
  struct Flight {
    bool active = false;
    transport::StepOutput output;
  };

  int Pick(int low, int high) {
    return low + static_cast<int>(random_() % static_cast<uint64_t>(high - low + 1));
  }

  void Arrive() {
    Live live;
    live.prompt.resize(Pick(1, shape_.context_length));
    // Few beginnings, so that some are shared.
    const int shared = Pick(0, shape_.context_length);
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
    scheduler_->Add(std::move(sequence));
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

  // Schedules idle lanes and lets some of the steps in flight come back. True if anything happened.
  bool Advance() {
    bool progressed = false;
    bool any_in_flight = false;
    for (int lane = 0; lane < options_.lanes; ++lane) {
      const Sequence* oldest = live_.empty() ? nullptr : scheduler_->Find(live_.begin()->first);
      const int preemptions = oldest == nullptr ? 0 : oldest->num_preemptions;
      if (!in_flight_[lane].active && scheduler_->Schedule(lane, &frame_)) {
        CheckFrame(lane);
        frame_.header.epoch = 1;
        in_flight_[lane] = {true, workers_->Compute(frame_)};
        progressed = true;
      }
      any_in_flight |= in_flight_[lane].active;
      EXPECT_TRUE(oldest == nullptr || oldest->num_preemptions == preemptions)
          << "the oldest always progresses";
    }
    EXPECT_TRUE(any_in_flight || scheduler_->idle()) << "work, but no step";
    for (int lane = 0; lane < options_.lanes; ++lane) {
      if (!in_flight_[lane].active || Pick(0, 2) == 0) continue;
      Complete(lane);
      progressed = true;
    }
    return progressed;
  }

  void CheckFrame(int lane) {
    EXPECT_LE(static_cast<int>(frame_.tokens.size()), shape_.max_rows);
    EXPECT_LE(static_cast<int>(frame_.sequences.size()), shape_.max_sequences);
    EXPECT_LE(static_cast<int>(frame_.logit_rows.size()), shape_.max_logit_rows);
    int prefill_rows = 0;
    bool prefill_seen = false;
    for (const ScheduledRows& rows : scheduler_->in_flight(lane)) {
      const Sequence& sequence = *rows.sequence;
      ASSERT_EQ(live_.count(sequence.id), 1u) << "a step computes nothing for the dead";
      Live& live = live_[sequence.id];
      if (sequence.num_preemptions != live.preemptions) {
        live.preemptions = sequence.num_preemptions;
        live.next = -1;
      }
      if (live.next < 0) {  // admitted: what it found in the cache is skipped
        EXPECT_EQ(rows.position % kKvBlockTokens, 0);
        live.highest = std::max(live.highest, rows.position);
      } else {
        EXPECT_EQ(rows.position, live.next) << "no gap, no repetition";
      }
      live.next = rows.position + rows.num_rows;
      const int fresh = std::max(0, live.next - std::max(live.highest, rows.position));
      first_rows_ += fresh;
      repeated_rows_ += rows.num_rows - fresh;
      live.highest = std::max(live.highest, live.next);
      const bool is_decode = rows.position >= sequence.num_prompt_tokens && rows.num_rows == 1;
      if (!is_decode) {
        prefill_rows += rows.num_rows;
        prefill_seen = true;
      }
      if (rows.position + 1 == sequence.num_tokens() && rows.position > 0 &&
          rows.position >= live.max_total - 1) {
        EXPECT_LT(rows.position, sequence.num_prompt_tokens) << "the last token is not computed";
      }
      EXPECT_FALSE(prefill_seen && is_decode) << "decodes come first";
    }
    EXPECT_LE(prefill_rows, options_.chunk_size);
  }

  void Complete(int lane) {
    size_t output_idx = 0;
    for (const ScheduledRows& rows : scheduler_->in_flight(lane)) {
      const transport::SequenceOutput& output = in_flight_[lane].output.sequences[output_idx++];
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
                             : live.next >= sequence->num_prompt_tokens && !sequence->samples();
      if (ended) Finish(sequence);
    }
    scheduler_->CompleteStep(lane);
    in_flight_[lane].active = false;
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
  StepShape shape_;
  SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::shared_ptr<FakeWorkers> workers_;
  transport::StepFrame frame_;
  std::map<uint64_t, Live> live_;
  std::vector<Flight> in_flight_;
  uint64_t last_id_ = 0;
  int first_rows_ = 0;
  int repeated_rows_ = 0;
};

TEST(SchedulerPropertyTest, EverySequenceEndsWithTheRightTokens) {
  const uint64_t seed = testing::TestSeed();
  uint64_t num_preemptions = 0;
  for (uint64_t round = 0; round < 3000; ++round) {
    SCOPED_TRACE(::testing::Message() << "simulation seed " << seed + round);
    Simulation simulation(seed + round);
    simulation.Run();
    num_preemptions += simulation.num_preemptions();
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(num_preemptions, 100u) << "the caches must be tight enough to test preemption";
}

}  // namespace
}  // namespace dovetail::coordinator
