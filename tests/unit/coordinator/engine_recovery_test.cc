// The engine when its pipeline is lost.
#include "tests/unit/coordinator/engine_fixture.h"

namespace dovetail::coordinator {
namespace {

TEST_F(EngineTest, ClearPipelineEndsRequestsAndANewOneServesAgain) {
  Start(Options());
  workers_->Hold();
  auto running = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  auto waiting = Submit(Request(Prompt(6), 5));
  engine_->ClearPipeline(absl::UnavailableError("worker cpu:1 was killed"));
  EXPECT_EQ(workers_.use_count(), 1) << "nothing refers to the old pipeline any more";
  for (auto& sink : {running, waiting}) {
    EXPECT_TRUE(sink->finished());
    EXPECT_EQ(sink->reason(), FinishReason::kError);
    EXPECT_THAT(sink->status(),
                StatusIs(absl::StatusCode::kUnavailable, "worker cpu:1 was killed"));
  }
  ExpectAllFree();
  EXPECT_THAT(SubmitError(Request(Prompt(5), 5)),
              StatusIs(absl::StatusCode::kUnavailable, "worker cpu:1 was killed"));
  auto next = std::make_shared<FakeWorkers>(Options().shape, kVocab, 4, /*epoch=*/2);
  engine_->SetPipeline(next->MakePipeline());
  auto sink = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->tokens(), FakeWorkers::Continue(Prompt(5), 5, kVocab));
  EXPECT_THAT(next->errors(), IsEmpty());
}

TEST_F(EngineTest, AnErrorOfThePipelineEndsRequestsAndIsReportedOnce) {
  for (const bool in_send : {true, false}) {
    std::vector<absl::Status> reports;
    EngineOptions options = Options();
    options.recovery_timeout = absl::Milliseconds(50);
    options.on_pipeline_lost = [&](const absl::Status& status) { reports.push_back(status); };
    Start(options);
    if (in_send) {
      workers_->BreakSend(absl::DeadlineExceededError("no room"));
    } else {
      workers_->Hold();
    }
    auto sink = Submit(Request(Prompt(5), 5));
    if (!in_send) {
      ASSERT_TRUE(workers_->WaitForSteps(1));
      workers_->BreakPoll(absl::AbortedError("no room"));
    }
    ASSERT_TRUE(sink->WaitFinished());
    EXPECT_THAT(sink->status(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no room")));
    ExpectAllFree();
    EXPECT_THAT(SubmitError(Request(Prompt(5), 5)),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("lost")));
    engine_.reset();
    ASSERT_EQ(reports.size(), 1u);
    EXPECT_THAT(reports[0], StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no room")));
  }
}

TEST_F(EngineTest, AStepThatDoesNotComeBackLosesThePipeline) {
  EngineOptions options = Options();
  options.step_timeout = absl::Milliseconds(40);
  options.step_timeout_per_row = absl::ZeroDuration();
  options.recovery_timeout = absl::Milliseconds(20);
  std::vector<absl::Status> reports;
  options.on_pipeline_lost = [&](const absl::Status& status) { reports.push_back(status); };
  Start(options);
  workers_->Hold();
  auto sink = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_THAT(sink->status(), StatusIs(absl::StatusCode::kUnavailable,
                                       HasSubstr("step 1 did not come back within 40ms")));
  engine_.reset();
  EXPECT_EQ(reports.size(), 1u);
}

TEST_F(EngineTest, StreamsGoOnAfterALostPipeline) {
  for (int lanes : {1, 3}) {
    EngineOptions options = Options();
    options.lanes = lanes;
    Start(options);
    workers_->Hold();
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 5; ++i) sinks.push_back(Submit(Request(Prompt(20 + 15 * i, i), 30)));
    EngineRequest request = Request(Prompt(75), 4);
    request.logits = true;
    auto logits = Submit(std::move(request));
    std::vector<std::shared_ptr<FakeWorkers>> epochs = {workers_};
    for (int lost = 0; lost < 6; ++lost) {  // at several points of prefill and decode
      epochs.back()->Release(1 + 12 * lost);
      epochs.back()->AwaitReleased();  // or one request would be lost too often
      absl::SleepFor(absl::Milliseconds(5));
      engine_->SuspendPipeline(absl::UnavailableError("worker cpu:1 was killed"));
      EXPECT_EQ(epochs.back().use_count(), lost == 0 ? 2 : 1) << "the old pipeline is gone";
      EXPECT_THAT(SubmitError(Request(Prompt(5), 5)),
                  StatusIs(absl::StatusCode::kUnavailable, "worker cpu:1 was killed"));
      epochs.push_back(std::make_shared<FakeWorkers>(options.shape, kVocab, 4, 2 + lost));
      epochs.back()->Hold();
      engine_->SetPipeline(epochs.back()->MakePipeline());
    }
    epochs.back()->Release(100'000);
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(sinks[i]->WaitFinished());
      EXPECT_OK(sinks[i]->status());
      EXPECT_EQ(sinks[i]->tokens(), FakeWorkers::Continue(Prompt(20 + 15 * i, i), 30, kVocab));
      EXPECT_EQ(sinks[i]->usage().completion_tokens, 30);
    }
    ASSERT_TRUE(logits->WaitFinished());
    EXPECT_OK(logits->status());
    EXPECT_EQ(logits->logits().size(), 75u * kVocab) << "every row once";
    EXPECT_EQ(engine_->WaitIdle(absl::Seconds(5)), 0);
    EXPECT_EQ(engine_->stats().recoveries, 6u);
    EXPECT_GT(engine_->stats().interrupted, 0u);
    EXPECT_GT(engine_->stats().recovery_seconds, 0);
    for (auto& workers : epochs) EXPECT_THAT(workers->errors(), IsEmpty());
  }
}

TEST_F(EngineTest, ARequestThatAlwaysKillsTheWorkersIsGivenUp) {
  Start(Options());
  workers_->Hold();
  auto deadly = Submit(Request(Prompt(5), 5));
  std::vector<std::shared_ptr<FakeWorkers>> epochs = {workers_};
  for (int lost = 0; lost < 4; ++lost) {
    EXPECT_FALSE(deadly->finished());
    ASSERT_TRUE(epochs.back()->WaitForSteps(1));
    engine_->SuspendPipeline(absl::UnavailableError("worker cpu:1 was killed"));
    epochs.push_back(std::make_shared<FakeWorkers>(Options().shape, kVocab, 4, 2 + lost));
    epochs.back()->Hold();
    engine_->SetPipeline(epochs.back()->MakePipeline());
  }
  ASSERT_TRUE(deadly->WaitFinished());
  EXPECT_THAT(deadly->status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("lost 4 times at this token")));
}

TEST_F(EngineTest, StreamsEndWhenTheWorkersDoNotComeBack) {
  EngineOptions options = Options();
  options.recovery_timeout = absl::Milliseconds(80);
  Start(options);
  workers_->Hold();
  auto sink = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  engine_->SuspendPipeline(absl::UnavailableError("cpu:0 -> cpu:1: the other end is gone"));
  engine_->SuspendPipeline(absl::UnavailableError("worker cpu:1 was killed"));
  EXPECT_FALSE(sink->finished());
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->reason(), FinishReason::kError);
  EXPECT_THAT(sink->status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       "worker cpu:1 was killed; the workers were not back within 80ms"));
  ExpectAllFree();
}

TEST_F(EngineTest, ASuspendedStreamCanBeCancelledAndCleared) {
  Start(Options());
  workers_->Hold();
  RequestId id = 0;
  auto cancelled = Submit(Request(Prompt(5), 5), &id);
  auto cleared = Submit(Request(Prompt(6), 5));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  engine_->SuspendPipeline(absl::UnavailableError("worker cpu:1 was killed"));
  engine_->Cancel(id);
  ASSERT_TRUE(cancelled->WaitFinished());
  EXPECT_EQ(cancelled->reason(), FinishReason::kCancelled);
  EXPECT_FALSE(cleared->finished());
  engine_->ClearPipeline(absl::UnavailableError("the server cannot go on"));
  EXPECT_TRUE(cleared->finished());
  EXPECT_THAT(cleared->status(),
              StatusIs(absl::StatusCode::kUnavailable, "the server cannot go on"));
  ExpectAllFree();
}

}  // namespace
}  // namespace dovetail::coordinator
