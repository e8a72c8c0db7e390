// What decides over the token that is drawn, and what is told of it: logprobs, adjustments, masks.
#include <condition_variable>
#include <map>
#include <mutex>
#include <numeric>

#include "coordinator/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::FakeWorkers;
using ::dovetail::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kVocab = 97;

class DrawSink : public TokenSink {
 public:
  void OnToken(int32_t token) override {
    std::lock_guard<std::mutex> lock(mutex_);
    tokens_.push_back(token);
    changed_.notify_all();
  }
  void OnLogprobs(int position, absl::Span<const TokenLogprob> logprobs) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_TRUE(logprobs_.emplace(position, std::vector(logprobs.begin(), logprobs.end())).second);
  }
  void OnFinish(FinishReason reason, const absl::Status& status, const RequestUsage&) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_OK(status);
    finished_ = true;
    reason_ = reason;
    changed_.notify_all();
  }
  bool WaitFinished() {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_until(lock, absl::ToChronoTime(absl::Now() + absl::Seconds(30)),
                               [this] { return finished_; });
  }
  bool WaitTokens(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_until(lock, absl::ToChronoTime(absl::Now() + absl::Seconds(30)),
                               [&] { return tokens_.size() >= count; });
  }
  std::vector<int32_t> tokens() {
    std::lock_guard<std::mutex> lock(mutex_);
    return tokens_;
  }
  std::map<int, std::vector<TokenLogprob>> logprobs() {
    std::lock_guard<std::mutex> lock(mutex_);
    return logprobs_;
  }
  FinishReason reason() {
    std::lock_guard<std::mutex> lock(mutex_);
    return reason_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int32_t> tokens_;
  std::map<int, std::vector<TokenLogprob>> logprobs_;  // by position
  bool finished_ = false;
  FinishReason reason_ = FinishReason::kError;
};

std::vector<int32_t> Prompt(int size, int first = 1) {
  std::vector<int32_t> prompt(size);
  for (int i = 0; i < size; ++i) prompt[i] = (first + i * 3) % kVocab;
  return prompt;
}

EngineRequest Request(std::vector<int32_t> prompt, int max_tokens) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

class EngineDrawTest : public ::testing::Test {
 protected:
  static EngineOptions Options() {
    EngineOptions options;
    options.shape = {.max_rows = 40,
                     .max_sequences = 8,
                     .max_logit_rows = 16,
                     .context_length = 200,
                     .num_kv_blocks = 64,
                     .vocab_size = kVocab};
    options.vocab_size = kVocab;
    options.hidden_size = 4;
    options.chunk_size = 32;
    return options;
  }
  void Start(const EngineOptions& options) {
    workers_ = std::make_shared<FakeWorkers>(options.shape, kVocab, options.hidden_size);
    engine_ = std::make_unique<Engine>(options);
    engine_->SetPipeline(workers_->MakePipeline());
  }
  std::shared_ptr<DrawSink> Submit(EngineRequest request) {
    auto sink = std::make_shared<DrawSink>();
    EXPECT_OK(engine_->Submit(std::move(request), sink));
    return sink;
  }
  absl::Status SubmitError(EngineRequest request) {
    return engine_->Submit(std::move(request), std::make_shared<DrawSink>()).status();
  }
  void TearDown() override {
    engine_.reset();
    EXPECT_THAT(workers_->errors(), IsEmpty());
  }
  void ExpectAllFree() {
    EXPECT_EQ(engine_->WaitIdle(absl::Seconds(10)), 0);
    EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
  }

  std::shared_ptr<FakeWorkers> workers_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineDrawTest, LogprobsOfPromptAndAnswerSurvivePreemption) {
  EngineOptions options = Options();
  options.shape.num_kv_blocks = 7;
  Start(options);
  std::vector<std::shared_ptr<DrawSink>> others;
  for (int i = 0; i < 3; ++i) others.push_back(Submit(Request(Prompt(40, i), 60)));
  EngineRequest both = Request(Prompt(75), 4);
  both.logits = true;
  both.num_top_logprobs = 2;
  auto with_prompt = Submit(std::move(both));
  EngineRequest answer = Request(Prompt(30), 3);
  answer.num_top_logprobs = 0;
  auto without_prompt = Submit(std::move(answer));
  ASSERT_TRUE(with_prompt->WaitFinished());
  ASSERT_TRUE(without_prompt->WaitFinished());
  std::vector<int32_t> tokens = Prompt(75);
  for (int32_t token : with_prompt->tokens()) tokens.push_back(token);
  EXPECT_EQ(tokens.size(), 79u);
  const auto logprobs = with_prompt->logprobs();
  ASSERT_EQ(logprobs.size(), 78u) << "of all but the first token";
  for (const auto& [position, entries] : logprobs) {
    ASSERT_EQ(entries.size(), 3u);
    const auto prefix = absl::MakeConstSpan(tokens).subspan(0, position);
    ASSERT_EQ(entries[0].token, tokens[position]) << position;
    ASSERT_EQ(entries[0].logprob, workers_->Logprob(prefix, tokens[position]));
    ASSERT_GE(entries[1].logprob, entries[2].logprob);
  }
  EXPECT_EQ(without_prompt->logprobs().size(), 3u);
  EXPECT_EQ(without_prompt->logprobs().begin()->first, 30);
  for (auto& other : others) ASSERT_TRUE(other->WaitFinished());
  ExpectAllFree();
}

// Allows one token: the last one plus one. Computes its masks when it is told to.
class CountingConstraint : public TokenConstraint {
 public:
  explicit CountingConstraint(int32_t first) : expected_(first) { Compute(); }
  void Accept(int32_t token) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(token, expected_);
    ++expected_;
    ready_ = false;
    if (!slow_) Compute();
  }
  bool WaitReady(absl::Duration) override {
    std::lock_guard<std::mutex> lock(mutex_);
    return ready_;
  }
  const Next& next() const override { return next_; }
  void MakeSlow() {
    std::lock_guard<std::mutex> lock(mutex_);
    slow_ = true;
  }
  void Release() {
    std::lock_guard<std::mutex> lock(mutex_);
    slow_ = false;
    Compute();
  }
  void FinishAt(int32_t token) { last_ = token; }

 private:
  void Compute() {
    next_.mask.assign(MaskWords(kVocab), 0);
    next_.mask[expected_ / 32] = uint32_t{1} << (expected_ % 32);
    next_.finished = expected_ > last_;
    ready_ = true;
  }
  std::mutex mutex_;
  Next next_;
  int32_t expected_;
  int32_t last_ = kVocab - 2;
  bool ready_ = false;
  bool slow_ = false;
};

TEST_F(EngineDrawTest, MasksReachTheWorkersAndEndARequest) {
  EngineOptions options = Options();
  options.shape.vocab_size = kVocab;
  Start(options);
  EngineRequest request = Request(Prompt(40), 50);
  auto constraint = std::make_shared<CountingConstraint>(3);
  constraint->FinishAt(7);
  request.constraint = constraint;
  auto sink = Submit(std::move(request));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_THAT(sink->tokens(), ElementsAre(3, 4, 5, 6, 7));
  EXPECT_EQ(sink->reason(), FinishReason::kStop);
  ExpectAllFree();
}

TEST_F(EngineDrawTest, ASequenceThatWaitsForItsMaskHoldsNobody) {
  EngineOptions options = Options();
  options.shape.vocab_size = kVocab;
  Start(options);
  EngineRequest request = Request(Prompt(5), 4);
  auto constraint = std::make_shared<CountingConstraint>(10);
  constraint->MakeSlow();  // after the first mask
  request.constraint = constraint;
  auto sink = Submit(std::move(request));
  ASSERT_TRUE(sink->WaitTokens(1));
  auto other = Submit(Request(Prompt(6), 20));
  ASSERT_TRUE(other->WaitFinished());
  EXPECT_EQ(other->tokens(), FakeWorkers::Continue(Prompt(6), 20, kVocab));
  EXPECT_EQ(sink->tokens().size(), 1u);
  const auto wake = engine_->Waker();
  constraint->Release();
  wake();
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_THAT(sink->tokens(), ElementsAre(10, 11, 12, 13));
  engine_.reset();
  wake();  // of an engine that is gone
}

// The constraint itself fails the test if a token comes twice or is left out; a mask of another
// position would allow another token.
TEST_F(EngineDrawTest, GrammarsGoOnWhereALostEpochLeftThem) {
  constexpr int kTokens = 30;
  for (int lanes : {1, 3}) {
    EngineOptions options = Options();
    options.shape.vocab_size = kVocab;
    options.lanes = lanes;
    Start(options);
    workers_->Hold();
    std::vector<std::shared_ptr<DrawSink>> sinks;
    std::vector<std::shared_ptr<CountingConstraint>> constraints;
    for (int i = 0; i < 5; ++i) {
      EngineRequest request = Request(Prompt(20 + 15 * i, i), 2 * kTokens);
      constraints.push_back(std::make_shared<CountingConstraint>(1 + 10 * i));
      constraints.back()->FinishAt(10 * i + kTokens);
      request.constraint = constraints.back();
      sinks.push_back(Submit(std::move(request)));
    }
    constraints[2]->MakeSlow();  // its second mask comes when some epochs are over
    std::vector<std::shared_ptr<FakeWorkers>> epochs = {workers_};
    for (int lost = 0; lost < 6; ++lost) {
      epochs.back()->Release(3 + 5 * lost);
      epochs.back()->AwaitReleased();
      absl::SleepFor(absl::Milliseconds(5));
      engine_->SuspendPipeline(absl::UnavailableError("worker cpu:1 was killed"));
      if (lost == 4) {
        constraints[2]->Release();
        engine_->Waker()();
      }
      epochs.push_back(std::make_shared<FakeWorkers>(options.shape, kVocab, 4, 2 + lost));
      epochs.back()->Hold();
      engine_->SetPipeline(epochs.back()->MakePipeline());
    }
    epochs.back()->Release(100'000);
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(sinks[i]->WaitFinished());
      std::vector<int32_t> expected(kTokens);
      std::iota(expected.begin(), expected.end(), 1 + 10 * i);
      EXPECT_EQ(sinks[i]->tokens(), expected);
      EXPECT_EQ(sinks[i]->reason(), FinishReason::kStop);
    }
    ExpectAllFree();
    for (auto& workers : epochs) EXPECT_THAT(workers->errors(), IsEmpty());
  }
}

TEST_F(EngineDrawTest, TheEndTokenHasNoLogprob) {
  Start(Options());
  EngineRequest request = Request(Prompt(5), 4);
  const std::vector<int32_t> answer = FakeWorkers::Continue(Prompt(5), 2, kVocab);
  request.num_top_logprobs = 0;
  request.end_tokens = {answer[1]};
  auto sink = Submit(std::move(request));
  ASSERT_TRUE(sink->WaitFinished());
  EXPECT_EQ(sink->reason(), FinishReason::kStop);
  EXPECT_EQ(sink->logprobs().size(), 1u);
}

TEST_F(EngineDrawTest, AdjustmentsReachTheWorkers) {
  Start(Options());
  EngineRequest biased = Request(Prompt(5), 3);
  biased.adjustments.logit_bias = {{42, 100.0f}};
  auto sink = Submit(std::move(biased));
  // An end token that would come first is put off until min_tokens were generated.
  EngineRequest patient = Request(Prompt(5), 6);
  patient.end_tokens = {42};
  patient.adjustments.logit_bias = {{42, 100.0f}};
  patient.adjustments.min_tokens = 4;
  auto second = Submit(std::move(patient));
  ASSERT_TRUE(sink->WaitFinished());
  ASSERT_TRUE(second->WaitFinished());
  EXPECT_THAT(sink->tokens(), ElementsAre(42, 42, 42));
  EXPECT_THAT(second->tokens(), ElementsAre(43, 43, 43, 43));
  EXPECT_EQ(second->reason(), FinishReason::kStop);
}

TEST_F(EngineDrawTest, RefusesWhatCannotBeDrawn) {
  Start(Options());
  EngineRequest biased = Request({1}, 5);
  biased.adjustments.logit_bias = {{97, 1.0f}};
  EXPECT_THAT(SubmitError(biased), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("the biased token id 97 is outside")));
  biased.adjustments.logit_bias = {{5, 1.0f}};
  biased.logits = true;
  EXPECT_THAT(SubmitError(biased),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("together with adjustments")));
  EngineRequest curious = Request({1}, 5);
  curious.num_top_logprobs = 21;
  EXPECT_THAT(SubmitError(curious),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most 20 logprobs")));
}

}  // namespace
}  // namespace dovetail::coordinator
