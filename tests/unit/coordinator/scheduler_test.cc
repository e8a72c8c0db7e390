#include "coordinator/scheduler.h"

#include <memory>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using transport::SequenceStep;

StepShape Shape() {
  StepShape shape;
  shape.max_rows = 24;
  shape.max_sequences = 4;
  shape.max_logit_rows = 8;
  shape.context_length = 256;
  shape.num_kv_blocks = 16;
  return shape;
}

class SchedulerTest : public ::testing::Test {
 protected:
  void Make(const StepShape& shape, int chunk_size = 20, int lanes = 1) {
    SchedulerOptions options;
    options.shape = shape;
    options.chunk_size = chunk_size;
    options.lanes = lanes;
    options.hidden_size = 8;
    options.preemption = preemption_;
    scheduler_ = std::make_unique<Scheduler>(options);
    frame_.Reserve(shape);
  }
  // Prompts differ from the first token on, unless they are told where to begin.
  Sequence* Add(int prompt, int max_tokens, bool logits = false, int first_token = -1) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = ++last_id_;
    sequence->tokens.resize(prompt);
    std::iota(sequence->tokens.begin(), sequence->tokens.end(),
              first_token >= 0 ? first_token : static_cast<int>(1000 * (last_id_ - 1)));
    sequence->num_prompt_tokens = prompt;
    sequence->max_total_tokens = scheduler_->MaxTotalTokens(prompt, max_tokens);
    sequence->wants_logits = logits;
    return scheduler_->Add(std::move(sequence), now_);
  }
  // Runs one step of the lane and appends token 7 where one was sampled.
  bool Step(int lane = 0) {
    if (!scheduler_->Schedule(lane, now_, &frame_)) return false;
    Answer(lane);
    return true;
  }
  void Answer(int lane) {
    for (const ScheduledRows& rows : scheduler_->in_flight(lane)) {
      if (rows.samples && !rows.sequence->removed) rows.sequence->tokens.push_back(7);
    }
    scheduler_->CompleteStep(lane);
    EXPECT_OK(scheduler_->Audit());
  }
  std::vector<int> RowsPerSequence() const {
    std::vector<int> rows;
    for (const SequenceStep& step : frame_.sequences) rows.push_back(step.num_rows);
    return rows;
  }

  std::unique_ptr<Scheduler> scheduler_;
  transport::StepFrame frame_;
  uint64_t last_id_ = 0;
  Preemption preemption_ = Preemption::kCheaper;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(SchedulerTest, NothingToDoGivesNoStep) {
  Make(Shape());
  EXPECT_FALSE(scheduler_->Schedule(0, now_, &frame_));
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(SchedulerTest, CutsAPromptIntoChunksAndSamplesAtItsEnd) {
  Make(Shape());
  Sequence* sequence = Add(45, 3);
  ASSERT_TRUE(scheduler_->Schedule(0, now_, &frame_));
  EXPECT_EQ(frame_.header.num_rows, 20u);
  EXPECT_EQ(frame_.header.num_logit_rows, 0u);
  EXPECT_EQ(frame_.header.num_block_ids, 2u);
  EXPECT_EQ(frame_.sequences[0].flags, 0u);
  EXPECT_EQ(sequence->num_computed_tokens, 20);
  Answer(0);
  ASSERT_TRUE(Step());
  EXPECT_EQ(frame_.sequences[0].position, 20);
  EXPECT_EQ(frame_.tokens[0], 20);
  ASSERT_TRUE(Step());
  EXPECT_EQ(frame_.header.num_rows, 5u);
  EXPECT_EQ(frame_.sequences[0].flags, SequenceStep::kSample);
  EXPECT_THAT(frame_.logit_rows, ElementsAre(4));
  ASSERT_TRUE(Step());
  EXPECT_THAT(frame_.tokens, ElementsAre(7));
  EXPECT_EQ(frame_.sequences[0].position, 45);
}

TEST_F(SchedulerTest, DecodesComeFirstAndPrefillFillsTheRest) {
  Make(Shape());
  Add(3, 10);
  Add(4, 10);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(3, 4));
  Add(50, 10);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(1, 1, 20));
  EXPECT_THAT(frame_.logit_rows, ElementsAre(0, 1));
}

TEST_F(SchedulerTest, AStepNeverHasMoreRowsThanItsShape) {
  StepShape shape = Shape();
  shape.max_rows = 10;
  Make(shape, /*chunk_size=*/64);
  Add(3, 10);
  Add(50, 10);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(3, 7));
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(1, 9));
}

TEST_F(SchedulerTest, AdmitsInOrderOfArrivalWhileBlocksAreFree) {
  StepShape shape = Shape();
  shape.max_rows = 128;
  shape.num_kv_blocks = 4;
  Make(shape, 120);
  Sequence* first = Add(33, 40);
  Sequence* big = Add(60, 40);  // its two blocks are free, but not one more
  Sequence* small = Add(1, 1);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(33));
  EXPECT_EQ(big->lane, -1);
  EXPECT_EQ(small->lane, -1) << "nobody overtakes";
  scheduler_->Remove(first);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(60, 1));
}

TEST_F(SchedulerTest, ASequenceThatEndsInItsLastBlockNeedsNoSpareOne) {
  StepShape shape = Shape();
  shape.num_kv_blocks = 1;
  Make(shape);
  Add(30, 3);  // the third token is sampled at position 31 and never computed
  ASSERT_TRUE(Step());
  ASSERT_TRUE(Step());
  EXPECT_TRUE(Step());
  EXPECT_EQ(scheduler_->num_preemptions(), 0u);
}

TEST_F(SchedulerTest, TheNewestGivesItsBlocksBackWhenTheOldestNeedsOne) {
  StepShape shape = Shape();
  shape.num_kv_blocks = 4;
  shape.max_rows = 80;
  Make(shape, 64);
  Sequence* old_one = Add(32, 60);
  Sequence* new_one = Add(20, 60);
  ASSERT_TRUE(Step());
  EXPECT_EQ(scheduler_->num_running(), 2);
  int steps = 1;
  while (new_one->num_preemptions == 0) {
    ASSERT_TRUE(Step());
    ASSERT_LT(++steps, 100);
  }
  EXPECT_EQ(old_one->num_preemptions, 0);
  EXPECT_EQ(new_one->num_computed_tokens, 0);
  EXPECT_TRUE(new_one->blocks.empty());
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  scheduler_->Remove(old_one);
  ASSERT_TRUE(Step());
  EXPECT_EQ(frame_.sequences[0].position + frame_.sequences[0].num_rows, new_one->num_tokens() - 1)
      << "all at once, again, after what is still in the cache";
  EXPECT_EQ(frame_.sequences[0].position, new_one->num_tokens() > 32 ? 32 : 0);
}

TEST_F(SchedulerTest, BlocksOfARemovedSequenceStayUntilItsStepIsBack) {
  Make(Shape());
  Sequence* sequence = Add(40, 5);
  const uint64_t id = sequence->id;
  ASSERT_TRUE(scheduler_->Schedule(0, now_, &frame_));
  EXPECT_EQ(scheduler_->pool().num_used(), 2);
  scheduler_->Remove(sequence);
  EXPECT_EQ(scheduler_->Find(id), nullptr);
  EXPECT_EQ(scheduler_->pool().num_used(), 2);
  EXPECT_EQ(scheduler_->num_running(), 0);
  EXPECT_FALSE(scheduler_->idle());
  Answer(0);
  EXPECT_EQ(scheduler_->pool().num_used(), 0);
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(SchedulerTest, AnEqualBeginningIsNotComputedAgain) {
  Make(Shape(), 24);
  Sequence* first = Add(70, 4);
  while (Step()) {
    if (first->num_tokens() == 73) break;
  }
  scheduler_->Remove(first);
  ASSERT_EQ(scheduler_->pool().num_used(), 0);
  EXPECT_EQ(scheduler_->pool().num_cached(), 2);
  Sequence* second = Add(70, 4, false, 0);
  Sequence* third = Add(64, 4, false, 0);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(6, 1));
  EXPECT_EQ(frame_.sequences[0].position, 64);
  EXPECT_EQ(frame_.sequences[1].position, 63) << "its last token is to be computed";
  EXPECT_EQ(second->num_cached_tokens, 64);
  EXPECT_EQ(third->num_cached_tokens, 63) << "one block, and a copy of part of the next";
  EXPECT_EQ(frame_.copies.size(), 1u);
  EXPECT_EQ(second->blocks[0], third->blocks[0]);
  EXPECT_NE(second->blocks[1], third->blocks[1]);
  EXPECT_EQ(scheduler_->kv().num_queried_tokens(), 70u + 70 + 64);
  EXPECT_EQ(scheduler_->kv().num_found_tokens(), 127u);
}

TEST_F(SchedulerTest, NothingOfAFailedStepIsUsedAgain) {
  Make(Shape(), 24);
  Sequence* first = Add(48, 4);
  ASSERT_TRUE(Step());
  ASSERT_TRUE(scheduler_->Schedule(0, now_, &frame_));
  scheduler_->Remove(first);
  scheduler_->DropStep(0);
  EXPECT_OK(scheduler_->Audit());
  EXPECT_EQ(scheduler_->pool().num_cached(), 0);
  Add(48, 4, false, 0);
  ASSERT_TRUE(Step());
  EXPECT_EQ(frame_.sequences[0].position, 0);
}

TEST_F(SchedulerTest, RowsWhoseLogitsAreWantedAreComputed) {
  Make(Shape());
  Sequence* first = Add(70, 1);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(Step());
  scheduler_->Remove(first);
  Add(70, 0, /*logits=*/true, 0);
  ASSERT_TRUE(Step());
  EXPECT_EQ(frame_.sequences[0].position, 0);
}

TEST_F(SchedulerTest, LogitRequestsRespectTheLogitRows) {
  Make(Shape());
  Sequence* sequence = Add(19, 0, /*logits=*/true);
  std::vector<int> firsts;
  while (sequence->num_pending_tokens() > 0) {
    ASSERT_TRUE(scheduler_->Schedule(0, now_, &frame_));
    EXPECT_LE(frame_.header.num_logit_rows, 8u);
    EXPECT_EQ(frame_.header.num_logit_rows, frame_.header.num_rows);
    EXPECT_EQ(frame_.sequences[0].flags, SequenceStep::kReturnLogits);
    firsts.push_back(scheduler_->in_flight(0)[0].first_logit_row);
    Answer(0);
  }
  EXPECT_THAT(firsts, ElementsAre(0, 8, 16));
}

TEST_F(SchedulerTest, APromptWaitsForALogitRowBeforeItIsSampled) {
  StepShape shape = Shape();
  shape.max_logit_rows = 4;
  Make(shape);
  Add(9, 0, /*logits=*/true);
  Add(3, 1);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(4, 2));
  EXPECT_THAT(frame_.logit_rows, ElementsAre(0, 1, 2, 3));
}

TEST_F(SchedulerTest, SpreadsDecodesOverLanes) {
  Make(Shape(), 20, /*lanes=*/2);
  Sequence* a = Add(3, 10);
  Sequence* b = Add(3, 10);
  Sequence* c = Add(3, 10);
  ASSERT_TRUE(Step(0));
  EXPECT_THAT(RowsPerSequence(), ElementsAre(3, 3, 3)) << "prompts go with any step";
  ASSERT_TRUE(scheduler_->Schedule(0, now_, &frame_));
  EXPECT_EQ(frame_.header.num_rows, 2u);
  ASSERT_TRUE(scheduler_->Schedule(1, now_, &frame_));
  EXPECT_EQ(frame_.header.num_rows, 1u);
  Answer(0);
  Answer(1);
  EXPECT_EQ(a->lane, 0);
  EXPECT_EQ(b->lane, 1);
  EXPECT_EQ(c->lane, 0);
  scheduler_->Remove(b);
  ASSERT_TRUE(Step(0));
  EXPECT_THAT(RowsPerSequence(), ElementsAre(1));
  EXPECT_EQ(c->lane, 1) << "moved to the lane that became empty";
}

TEST_F(SchedulerTest, ChunksOfOnePromptAreInFlightInSeveralLanes) {
  Make(Shape(), 20, /*lanes=*/3);
  Sequence* sequence = Add(50, 4);
  ASSERT_TRUE(scheduler_->Schedule(0, now_, &frame_));
  ASSERT_TRUE(scheduler_->Schedule(1, now_, &frame_));
  EXPECT_EQ(frame_.sequences[0].position, 20);
  ASSERT_TRUE(scheduler_->Schedule(2, now_, &frame_));
  EXPECT_EQ(frame_.header.num_rows, 10u);
  EXPECT_EQ(frame_.sequences[0].flags, SequenceStep::kSample);
  EXPECT_EQ(sequence->num_in_flight, 3);
  Answer(0);
  EXPECT_FALSE(scheduler_->Schedule(0, now_, &frame_)) << "nothing is left of it";
  scheduler_->Remove(sequence);
  Answer(1);
  EXPECT_EQ(scheduler_->pool().num_used(), 2) << "a step still writes to its blocks";
  Answer(2);
  EXPECT_EQ(scheduler_->pool().num_used(), 0);
}

TEST_F(SchedulerTest, AnEqualPromptWaitsForTheFirstAndSharesItsBlocks) {
  StepShape shape = Shape();
  shape.max_rows = 80;
  Make(shape, 40);
  Sequence* first = Add(70, 10, false, 0);
  Sequence* second = Add(70, 10, false, 0);
  Sequence* other = Add(4, 10);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(40));
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(30, 4)) << "others need not wait";
  EXPECT_EQ(second->lane, -1);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(1, 1, 1)) << "only its last token is computed";
  EXPECT_EQ(second->num_cached_tokens, 69);
  EXPECT_EQ(second->blocks[1], first->blocks[1]);
  ASSERT_EQ(frame_.copies.size(), 1u) << "the block that they share in part";
  EXPECT_EQ(frame_.copies[0].from, first->blocks[2]);
  EXPECT_EQ(frame_.copies[0].to, second->blocks[2]);
  EXPECT_EQ(frame_.header.num_copies, 1u);
  EXPECT_GT(other->num_tokens(), 4);
}

TEST_F(SchedulerTest, APreemptedSequenceIsSwappedOutAndComesBack) {
  StepShape shape = Shape();
  shape.num_kv_blocks = 4;
  shape.num_swap_blocks = 3;
  shape.max_rows = 80;
  preemption_ = Preemption::kSwap;
  Make(shape, 64);
  Sequence* old_one = Add(32, 60);
  Sequence* new_one = Add(20, 60);
  std::vector<BlockId> held;
  while (new_one->num_preemptions == 0) {
    held = new_one->blocks;
    ASSERT_TRUE(Step());
  }
  const int computed = new_one->num_computed_tokens;
  EXPECT_GT(computed, 32);
  EXPECT_EQ(scheduler_->num_swapped(), 1);
  EXPECT_EQ(scheduler_->counts().swaps, 1u);
  EXPECT_EQ(scheduler_->kv().num_swap_used(), 2);
  ASSERT_EQ(frame_.copies.size(), 2u);
  EXPECT_EQ(frame_.copies[0].from, held[0]);
  EXPECT_EQ(frame_.copies[0].to, new_one->swapped[0]);
  const std::vector<BlockId> swapped = new_one->swapped;
  scheduler_->Remove(old_one);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(1)) << "nothing is computed again";
  EXPECT_EQ(frame_.sequences[0].position, computed);
  EXPECT_EQ(frame_.copies.back().from, swapped[1]);
  EXPECT_EQ(frame_.copies.back().to, new_one->blocks[1]);
  EXPECT_EQ(scheduler_->kv().num_swap_used(), 0);
}

TEST_F(SchedulerTest, ALostEpochIsComputedAgainFromTheTokens) {
  Make(Shape(), 20, /*lanes=*/2);
  Sequence* running = Add(10, 20);
  Sequence* logits = Add(12, 0, /*logits=*/true);
  Sequence* gone = Add(5, 20);
  ASSERT_TRUE(Step(0));
  ASSERT_TRUE(scheduler_->Schedule(0, now_, &frame_));
  scheduler_->Schedule(1, now_, &frame_);
  const int rows_sent = logits->num_logit_rows_sent;
  const int tokens = running->num_tokens();
  scheduler_->Remove(gone);
  scheduler_->LoseEpoch();
  EXPECT_OK(scheduler_->Audit());
  EXPECT_EQ(scheduler_->pool().num_used(), 0);
  EXPECT_EQ(scheduler_->num_waiting(), 2);
  EXPECT_EQ(scheduler_->num_running(), 0);
  EXPECT_EQ(scheduler_->counts().interrupted, 2u);
  EXPECT_EQ(running->num_tokens(), tokens);
  EXPECT_LT(logits->num_logit_rows_sent, rows_sent) << "what was lost is asked for again";
  ASSERT_TRUE(Step(0));
  EXPECT_EQ(frame_.sequences[0].position, 0);
  EXPECT_EQ(frame_.sequences[0].num_rows, tokens);
}

TEST_F(SchedulerTest, UrgentOnesGoFirstAndThoseWhoWaitBecomeUrgent) {
  StepShape shape = Shape();
  shape.max_sequences = 1;
  Make(shape);
  Sequence* low = Add(3, 1);
  low->priority = 2;
  Sequence* high = Add(3, 1);
  ASSERT_TRUE(Step());
  EXPECT_EQ(high->num_tokens(), 4);
  EXPECT_EQ(low->num_tokens(), 3);
  scheduler_->Remove(high);
  now_ += absl::Seconds(61);  // two classes
  Sequence* later = Add(3, 1);
  ASSERT_TRUE(Step());
  EXPECT_EQ(low->num_tokens(), 4);
  EXPECT_EQ(later->num_tokens(), 3);
}

// A model under which a prefill row takes 1 ms and everything else nothing.
TEST_F(SchedulerTest, PromptsLeaveTheDecodesTheirTime) {
  StepShape shape = Shape();
  shape.max_rows = 520;
  shape.context_length = 4096;
  shape.num_kv_blocks = 200;
  Make(shape, 512);
  scheduler_->cost_model().SetRoute({0});
  for (int i = 0; i < 40; ++i) {
    StepWork work;
    work.AddPrefill(0, 16 * (1 + i % 8));
    const uint32_t us = static_cast<uint32_t>(1000 * work.prefill_rows);
    scheduler_->cost_model().Observe(work, {us}, us * 1e-6, true);
  }
  Sequence* alone = Add(600, 10);
  ASSERT_TRUE(Step());
  EXPECT_THAT(RowsPerSequence(), ElementsAre(512)) << "nobody waits for a token";
  ASSERT_TRUE(Step());
  ASSERT_TRUE(alone->prompt_confirmed());
  Add(600, 10);
  ASSERT_TRUE(Step());
  EXPECT_EQ(frame_.sequences.size(), 2u);
  EXPECT_EQ(frame_.sequences[1].num_rows, 96) << "100 ms, in whole blocks";
}

TEST_F(SchedulerTest, RefusesWhatCanNeverFit) {
  StepShape shape = Shape();
  Make(shape);
  EXPECT_OK(scheduler_->CheckFits(255, 1));
  EXPECT_OK(scheduler_->CheckFits(256, 0));
  EXPECT_THAT(scheduler_->CheckFits(256, 1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "this model's maximum context length is 256 tokens; your prompt has 256 "
                       "tokens, which leaves no room for an answer"));
  EXPECT_THAT(scheduler_->CheckFits(300, 1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "this model's maximum context length is 256 tokens; your prompt has 300 "
                       "tokens"));
  shape.num_kv_blocks = 2;
  Make(shape);
  EXPECT_THAT(scheduler_->CheckFits(64, 1),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "the whole KV cache holds 64 tokens; your prompt has 64 tokens"));
  EXPECT_EQ(scheduler_->MaxTotalTokens(60, 100), 64);
}

}  // namespace
}  // namespace dovetail::coordinator
