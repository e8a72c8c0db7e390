#include "coordinator/engine.h"

#include <sys/resource.h>

#include <algorithm>
#include <thread>

#include "tests/unit/coordinator/engine_fixture.h"

namespace dovetail::coordinator {
namespace {

TEST_F(EngineTest, GeneratesWhatTheWorkersComputeFromTheWholePrompt) {
  Start(Options());
  auto sink = Submit(Request(Prompt(70), 12));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->tokens(), FakeWorkers::Continue(Prompt(70), 12, kVocab));
  EXPECT_EQ(sink->reason(), FinishReason::kLength);
  EXPECT_OK(sink->status());
  EXPECT_EQ(sink->usage().prompt_tokens, 70);
  EXPECT_EQ(sink->usage().completion_tokens, 12);
  ExpectAllFree();
  EXPECT_EQ(workers_->num_rows(), 70 + 11) << "the last token is not computed";
  EXPECT_EQ(engine_->stats().prompt_tokens, 70u);
  EXPECT_EQ(engine_->stats().generated_tokens, 12u);
}

TEST_F(EngineTest, ManyRequestsAtOnceEachGetTheirOwnTokens) {
  for (int lanes : {1, 2, 3}) {
    EngineOptions options = Options();
    options.lanes = lanes;
    Start(options);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 30; ++i) sinks.push_back(Submit(Request(Prompt(1 + i * 5, i), 20)));
    for (int i = 0; i < 30; ++i) {
      ASSERT_TRUE(sinks[i]->WaitFinished());
      EXPECT_EQ(sinks[i]->tokens(), FakeWorkers::Continue(Prompt(1 + i * 5, i), 20, kVocab));
    }
    ExpectAllFree();
    EXPECT_GT(workers_->max_sequences_seen(), 1) << "batched";
  }
}

// Where the route comes back, as few steps are on the way as fit the rings, and every lane has its
// turn.
TEST_F(EngineTest, OnALoopFewStepsAreOnTheWay) {
  EngineOptions options = Options();
  options.lanes = 3;
  options.lanes_on_loops = 1;
  workers_ = std::make_shared<FakeWorkers>(options.shape, kVocab, options.hidden_size);
  workers_->set_segment_workers({0, 1, 0});
  workers_->Hold();
  engine_ = std::make_unique<Engine>(options);
  engine_->SetPipeline(workers_->MakePipeline());
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 6; ++i) sinks.push_back(Submit(Request(Prompt(20, i), 8)));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(workers_->num_steps(), 1);
  workers_->Release(1'000'000);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(sinks[i]->WaitFinished());
    EXPECT_EQ(sinks[i]->tokens(), FakeWorkers::Continue(Prompt(20, i), 8, kVocab));
  }
  ExpectAllFree();
}

TEST_F(EngineTest, PreemptionsChangeNoToken) {
  for (int lanes : {1, 2}) {
    EngineOptions options = Options();
    options.shape.num_kv_blocks = 7;  // one sequence of the whole context, just
    options.lanes = lanes;
    Start(options);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 12; ++i) sinks.push_back(Submit(Request(Prompt(20 + i, i), 100)));
    for (int i = 0; i < 12; ++i) {
      ASSERT_TRUE(sinks[i]->WaitFinished());
      EXPECT_EQ(sinks[i]->tokens(), FakeWorkers::Continue(Prompt(20 + i, i), 100, kVocab));
    }
    ExpectAllFree();
    EXPECT_GT(engine_->stats().preemptions, 0u) << "the test must be tight enough";
  }
}

TEST_F(EngineTest, AnEqualBeginningIsFoundAndChangesNoToken) {
  Start(Options());
  auto first = Submit(Request(Prompt(100), 8));
  ASSERT_TRUE(first->WaitFinished());
  EXPECT_EQ(first->usage().cached_tokens, 0);
  const int rows = workers_->num_rows();
  auto second = Submit(Request(Prompt(100), 8));
  ASSERT_TRUE(second->WaitFinished());
  EXPECT_EQ(second->tokens(), first->tokens());
  EXPECT_EQ(second->usage().cached_tokens, 96);
  EXPECT_EQ(workers_->num_rows() - rows, 4 + 7);
  EngineRequest request = Request(Prompt(100), 8);
  request.cache_salt = "somebody else";
  auto third = Submit(std::move(request));
  ASSERT_TRUE(third->WaitFinished());
  EXPECT_EQ(third->tokens(), first->tokens());
  EXPECT_EQ(third->usage().cached_tokens, 0);
  ExpectAllFree();
  EXPECT_EQ(engine_->stats().prefix_queried_tokens, 300u);
  EXPECT_EQ(engine_->stats().prefix_cached_tokens, 96u);
}

TEST_F(EngineTest, ANewEpochKnowsNothingOfTheOldOne) {
  Start(Options());
  ASSERT_TRUE(Submit(Request(Prompt(100), 8))->WaitFinished());
  engine_->ClearPipeline(absl::UnavailableError("a worker was lost"));
  auto next = std::make_shared<FakeWorkers>(Options().shape, kVocab, 4, /*epoch=*/2);
  engine_->SetPipeline(next->MakePipeline());
  auto sink = Submit(Request(Prompt(100), 8));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->usage().cached_tokens, 0);
  EXPECT_EQ(sink->tokens(), FakeWorkers::Continue(Prompt(100), 8, kVocab));
  EXPECT_THAT(next->errors(), IsEmpty());
}

TEST_F(EngineTest, AnEndTokenEndsTheAnswerAndIsNotEmitted) {
  Start(Options());
  const std::vector<int32_t> expected = FakeWorkers::Continue(Prompt(5), 30, kVocab);
  EngineRequest request = Request(Prompt(5), 30);
  request.end_tokens = {expected[6]};
  const auto first = std::find(expected.begin(), expected.end(), expected[6]);
  auto sink = Submit(std::move(request));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->reason(), FinishReason::kStop);
  EXPECT_EQ(sink->tokens(), std::vector<int32_t>(expected.begin(), first));
  EXPECT_EQ(sink->usage().completion_tokens, first - expected.begin());
  ExpectAllFree();
}

TEST_F(EngineTest, GenerationEndsWithTheContext) {
  Start(Options());
  auto sink = Submit(Request(Prompt(190), 1000));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->reason(), FinishReason::kLength);
  EXPECT_EQ(sink->tokens().size(), 10u);
  ExpectAllFree();
}

TEST_F(EngineTest, LogitsOfEveryPromptRowComeInOrder) {
  EngineOptions options = Options();
  options.shape.num_kv_blocks = 7;
  Start(options);
  std::vector<std::shared_ptr<RecordingSink>> others;
  for (int i = 0; i < 3; ++i) others.push_back(Submit(Request(Prompt(40, i), 60)));
  EngineRequest request = Request(Prompt(75), 4);
  request.logits = true;
  auto sink = Submit(std::move(request));
  EngineRequest only_logits = Request(Prompt(33), 0);
  only_logits.logits = true;
  auto second = Submit(std::move(only_logits));
  ASSERT_TRUE(sink->WaitFinished());
  ASSERT_TRUE(second->WaitFinished());
  EXPECT_EQ(sink->tokens(), FakeWorkers::Continue(Prompt(75), 4, kVocab));
  EXPECT_THAT(second->tokens(), IsEmpty());
  EXPECT_EQ(second->reason(), FinishReason::kLength);
  ASSERT_EQ(sink->logits().size(), 75u * kVocab);
  ASSERT_EQ(second->logits().size(), 33u * kVocab);
  const std::vector<float> logits = sink->logits();
  const std::vector<int32_t> prompt = Prompt(75);
  for (int row = 0; row < 75; ++row) {
    const auto prefix = absl::MakeConstSpan(prompt).subspan(0, row + 1);
    for (int token : {0, 50, 96}) {
      ASSERT_EQ(logits[row * kVocab + token], FakeWorkers::Logit(prefix, token)) << row;
    }
  }
  for (auto& other : others) ASSERT_TRUE(other->WaitFinished());
  ExpectAllFree();
}

TEST_F(EngineTest, RefusesBadRequests) {
  Start(Options());
  EXPECT_THAT(SubmitError(Request({}, 5)),
              StatusIs(absl::StatusCode::kInvalidArgument, "the prompt has no tokens"));
  EXPECT_THAT(SubmitError(Request({1, 97}, 5)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "token id 97 is outside of the vocabulary of 97 tokens"));
  EXPECT_THAT(SubmitError(Request({1, -1}, 5)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("token id -1")));
  EXPECT_THAT(SubmitError(Request({1}, 0)),
              StatusIs(absl::StatusCode::kInvalidArgument, "max_tokens must be at least 1, got 0"));
  EXPECT_THAT(SubmitError(Request(Prompt(201), 5)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "this model's maximum context length is 200 tokens; your prompt has 201 "
                       "tokens"));
}

TEST_F(EngineTest, WithoutAPipelineRequestsAreRefused) {
  Start(Options(), /*connect=*/false);
  EXPECT_THAT(SubmitError(Request(Prompt(5), 5)),
              StatusIs(absl::StatusCode::kUnavailable, "the workers are not connected yet"));
  engine_->SetPipeline(workers_->MakePipeline());
  auto sink = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_OK(sink->status());
}

TEST_F(EngineTest, SwappingChangesNoToken) {
  for (const Preemption preemption : {Preemption::kSwap, Preemption::kRecompute}) {
    EngineOptions options = Options();
    options.shape.num_kv_blocks = 7;
    options.shape.num_swap_blocks = 14;
    options.preemption = preemption;
    options.lanes = 2;
    Start(options);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 12; ++i) sinks.push_back(Submit(Request(Prompt(20 + i, i), 100)));
    for (int i = 0; i < 12; ++i) {
      ASSERT_TRUE(sinks[i]->WaitFinished());
      EXPECT_EQ(sinks[i]->tokens(), FakeWorkers::Continue(Prompt(20 + i, i), 100, kVocab));
    }
    ExpectAllFree();
    const EngineStats stats = engine_->stats();
    EXPECT_GT(stats.preemptions, 0u);
    EXPECT_EQ(stats.preemptions_by_swap > 0, preemption == Preemption::kSwap);
    EXPECT_EQ(stats.swap_blocks_used, 0);
  }
}

TEST_F(EngineTest, ACancelledSequenceLeavesAtTheStepBorder) {
  Start(Options());
  workers_->Hold();
  RequestId id = 0;
  auto sink = Submit(Request(Prompt(64), 50), &id);
  ASSERT_TRUE(workers_->WaitForSteps(1));
  engine_->Cancel(id);
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->reason(), FinishReason::kCancelled);
  EXPECT_THAT(sink->status(), StatusIs(absl::StatusCode::kCancelled, HasSubstr("cancelled")));
  EXPECT_EQ(engine_->stats().kv_blocks_used, 2) << "a step still writes to its blocks";
  workers_->Release(1);
  ExpectAllFree();
  EXPECT_THAT(sink->tokens(), IsEmpty());
  EXPECT_EQ(workers_->num_steps(), 1);
}

TEST_F(EngineTest, ACancelFromTheSinkCostsNoFurtherStep) {
  Start(Options());
  struct CancellingSink : RecordingSink {
    void OnToken(int32_t token) override {
      RecordingSink::OnToken(token);
      if (tokens().size() == 3) engine->Cancel(id);
    }
    Engine* engine = nullptr;
    std::atomic<RequestId> id{0};
  };
  workers_->Hold();
  auto sink = std::make_shared<CancellingSink>();
  sink->engine = engine_.get();
  ASSERT_OK_AND_ASSIGN(sink->id, engine_->Submit(Request(Prompt(5), 50), sink));
  workers_->Release(100);
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->reason(), FinishReason::kCancelled);
  ExpectAllFree();
  EXPECT_EQ(sink->tokens().size(), 3u);
  EXPECT_EQ(workers_->num_steps(), 3);
}

TEST_F(EngineTest, ARequestEndsAtItsDeadline) {
  Start(Options());
  workers_->Hold();
  EngineRequest request = Request(Prompt(5), 5);
  request.deadline = absl::Now() + absl::Milliseconds(30);
  auto sink = Submit(std::move(request));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_GE(absl::Now(), request.deadline);
  EXPECT_EQ(sink->reason(), FinishReason::kError);
  EXPECT_THAT(sink->status(), StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("deadline")));
  workers_->Release(1);
  ExpectAllFree();
}

TEST_F(EngineTest, WhatCannotMeetItsDeadlineIsNotBegun) {
  Start(Options());
  for (int i = 0; i < 20; ++i) {  // the fake workers say 100 us for a step: that is learned
    ASSERT_TRUE(Submit(Request(Prompt(40 + i, i), 3))->WaitFinished());
  }
  const int steps = workers_->num_steps();
  EngineRequest request = Request(Prompt(150, 50), 5);
  request.deadline = absl::Now() + absl::Microseconds(1);
  auto sink = Submit(std::move(request));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_THAT(sink->status(),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("the prompt alone takes")));
  ExpectAllFree();
  EXPECT_EQ(workers_->num_steps(), steps);
}

TEST_F(EngineTest, AValueThatIsNotFiniteIsNeverSampledFrom) {
  EngineOptions options = Options();
  options.module_names = {"model.embed_tokens", "model.layers.0.self_attn", "model.layers.0.mlp"};
  Start(options);
  workers_->FailNextStep(3);
  auto sink = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->reason(), FinishReason::kError);
  EXPECT_THAT(sink->status(), StatusIs(absl::StatusCode::kInternal,
                                       "a value stopped being finite in model.layers.0.mlp"));
  EXPECT_THAT(sink->tokens(), IsEmpty());
  ExpectAllFree();
  auto next = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(next->WaitFinished());
  EXPECT_OK(next->status());
}

TEST_F(EngineTest, OutputsOfAnotherEpochAreIgnored) {
  Start(Options());
  workers_->Hold();
  workers_->AnswerWithEpoch(99);
  RequestId id = 0;
  auto sink = Submit(Request(Prompt(5), 5), &id);
  ASSERT_TRUE(workers_->WaitForSteps(1));
  workers_->Release(1);
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_FALSE(sink->finished());
  EXPECT_THAT(sink->tokens(), IsEmpty());
  EXPECT_EQ(workers_->num_steps(), 1) << "the step counts as in flight";
}

TEST_F(EngineTest, ATenantsPriorityIsAddedToThatOfItsRequests) {
  EngineOptions options = Options();
  options.shape.max_sequences = 1;
  options.shape.max_logit_rows = 1;
  options.tenant_priority = {{"gold", -10}, {"bronze", 5}};
  Start(options);
  workers_->Hold();
  auto first = Submit(Request(Prompt(5), 1));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  struct {
    const char* tenant;
    int priority;
    int sum;
  } const cases[] = {{"bronze", 0, 5}, {"", 3, 3}, {"gold", 8, -2}, {"gold", 0, -10}};
  for (const auto& c : cases) {
    EngineRequest request = Request(Prompt(5), 1);
    request.tenant = c.tenant;
    request.priority = c.priority;
    Submit(std::move(request));
  }
  ASSERT_OK_AND_ASSIGN(const auto sequences, engine_->ListSequences(absl::Seconds(10)));
  ASSERT_EQ(sequences.size(), 5u);
  for (const auto& c : cases) {
    EXPECT_EQ(std::count_if(sequences.begin(), sequences.end(),
                            [&](const SequenceInfo& s) {
                              return s.priority == c.sum && s.tenant == c.tenant;
                            }),
              1)
        << c.tenant << " " << c.priority;
  }
  EngineRequest pushing = Request(Prompt(5), 1);
  pushing.priority = -1;
  EXPECT_THAT(SubmitError(pushing),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "`priority` must be at least 0 where API keys have priorities, got -1"));
  workers_->Release(100);
  ExpectAllFree();
}

TEST_F(EngineTest, AFullQueueRefuses) {
  EngineOptions options = Options();
  options.max_queue = 2;
  options.shape.max_sequences = 1;
  Start(options);
  workers_->Hold();
  auto running = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  while (engine_->stats().running == 0) absl::SleepFor(absl::Milliseconds(1));
  Submit(Request(Prompt(5), 5));
  Submit(Request(Prompt(5), 5));
  EXPECT_THAT(
      SubmitError(Request(Prompt(5), 5)),
      StatusIs(absl::StatusCode::kResourceExhausted, "the queue is full: 2 requests are waiting"));
  workers_->Release(1000);
  ExpectAllFree();
  EXPECT_OK(SubmitError(Request(Prompt(5), 5)));
}

TEST_F(EngineTest, DestructionCancelsWhatRuns) {
  Start(Options());
  workers_->Hold();
  auto running = Submit(Request(Prompt(5), 5));
  ASSERT_TRUE(workers_->WaitForSteps(1));
  engine_.reset();
  EXPECT_TRUE(running->finished());
  EXPECT_EQ(running->reason(), FinishReason::kCancelled);
  EXPECT_EQ(workers_.use_count(), 1);
}

TEST_F(EngineTest, WaitIdleReportsWhatIsLeft) {
  Start(Options());
  workers_->Hold();
  Submit(Request(Prompt(5), 5));
  Submit(Request(Prompt(5), 5));
  EXPECT_EQ(engine_->WaitIdle(absl::Milliseconds(20)), 2);
  workers_->Release(1000);
  EXPECT_EQ(engine_->WaitIdle(absl::InfiniteDuration()), 0);
}

TEST_F(EngineTest, AnIdleEngineUsesNoCpu) {
  Start(Options());
  ASSERT_TRUE(Submit(Request(Prompt(5), 5))->WaitFinished());
  ExpectAllFree();
  rusage before{};
  rusage after{};
  ASSERT_EQ(getrusage(RUSAGE_SELF, &before), 0);
  absl::SleepFor(absl::Milliseconds(300));
  ASSERT_EQ(getrusage(RUSAGE_SELF, &after), 0);
  const auto micros = [](const timeval& t) { return t.tv_sec * 1'000'000 + t.tv_usec; };
  EXPECT_LT(micros(after.ru_utime) + micros(after.ru_stime) - micros(before.ru_utime) -
                micros(before.ru_stime),
            30'000);
}

// Submits, cancels, disconnects and asks from many threads; for ThreadSanitizer, and every request
// must end.
TEST_F(EngineTest, SurvivesManyThreads) {
  EngineOptions options = Options();
  options.shape.num_kv_blocks = 12;
  options.lanes = 2;
  Start(options);
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        auto sink = std::make_shared<RecordingSink>();
        absl::StatusOr<RequestId> id =
            engine_->Submit(Request(Prompt(1 + (i * 7 + t * 13) % 90, i), 1 + i % 30), sink);
        if (!id.ok()) continue;
        if (i % 3 == 0) engine_->Cancel(*id);
        std::lock_guard<std::mutex> lock(mutex);
        sinks.push_back(sink);
      }
    });
  }
  std::vector<std::shared_ptr<FakeWorkers>> epochs = {workers_};
  for (int i = 0; i < 5; ++i) {
    absl::SleepFor(absl::Milliseconds(3));
    const absl::Status lost = absl::UnavailableError("a worker was lost");
    if (i % 2 == 0) {
      engine_->SuspendPipeline(lost);
    } else {
      engine_->ClearPipeline(lost);
    }
    epochs.push_back(std::make_shared<FakeWorkers>(options.shape, kVocab, 4, 10 + i));
    engine_->SetPipeline(epochs.back()->MakePipeline());
    EXPECT_GE(engine_->stats().kv_blocks_total, 12);
  }
  for (std::thread& thread : threads) thread.join();
  for (auto& sink : sinks) EXPECT_TRUE(sink->WaitFinished());
  ExpectAllFree();
  for (auto& workers : epochs) EXPECT_THAT(workers->errors(), IsEmpty());
}

}  // namespace
}  // namespace dovetail::coordinator
