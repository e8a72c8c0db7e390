// What tests of the engine share: a sink that records, requests, and an engine over fake workers.
#ifndef DOVETAIL_TESTS_UNIT_COORDINATOR_ENGINE_FIXTURE_H_
#define DOVETAIL_TESTS_UNIT_COORDINATOR_ENGINE_FIXTURE_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "coordinator/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_pipeline.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::coordinator {

using ::dovetail::testing::FakeWorkers;
using ::dovetail::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

inline constexpr int kVocab = 97;

// Records one request's results.
class RecordingSink : public TokenSink {
 public:
  void OnToken(int32_t token) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(finished_) << "a token after the end";
    tokens_.push_back(token);
    changed_.notify_all();
  }
  void OnLogits(int first_row, absl::Span<const float> rows, int vocab_size) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(first_row * vocab_size, static_cast<int>(logits_.size())) << "rows in order";
    logits_.insert(logits_.end(), rows.begin(), rows.end());
  }
  void OnFinish(FinishReason reason, const absl::Status& status,
                const RequestUsage& usage) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(finished_) << "a second end";
    finished_ = true;
    reason_ = reason;
    status_ = status;
    usage_ = usage;
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
  std::vector<int32_t> tokens() { return Locked(tokens_); }
  std::vector<float> logits() { return Locked(logits_); }
  FinishReason reason() { return Locked(reason_); }
  absl::Status status() { return Locked(status_); }
  RequestUsage usage() { return Locked(usage_); }
  bool finished() { return Locked(finished_); }

 private:
  template <typename T>
  T Locked(const T& value) {
    std::lock_guard<std::mutex> lock(mutex_);
    return value;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
  bool finished_ = false;
  FinishReason reason_ = FinishReason::kError;
  absl::Status status_;
  RequestUsage usage_;
};

inline EngineOptions Options() {
  EngineOptions options;
  options.shape.max_rows = 40;
  options.shape.max_sequences = 8;
  options.shape.max_logit_rows = 16;
  options.shape.context_length = 200;
  options.shape.num_kv_blocks = 64;
  options.vocab_size = kVocab;
  options.hidden_size = 4;
  options.chunk_size = 32;
  return options;
}

inline std::vector<int32_t> Prompt(int size, int first = 1) {
  std::vector<int32_t> prompt(size);
  for (int i = 0; i < size; ++i) prompt[i] = (first + i * 3) % kVocab;
  return prompt;
}

inline EngineRequest Request(std::vector<int32_t> prompt, int max_tokens) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

class EngineTest : public ::testing::Test {
 protected:
  void Start(const EngineOptions& options, bool connect = true) {
    workers_ = std::make_shared<FakeWorkers>(options.shape, kVocab, options.hidden_size);
    engine_ = std::make_unique<Engine>(options);
    if (connect) engine_->SetPipeline(workers_->MakePipeline());
  }
  std::shared_ptr<RecordingSink> Submit(EngineRequest request, RequestId* id = nullptr) {
    auto sink = std::make_shared<RecordingSink>();
    absl::StatusOr<RequestId> submitted = engine_->Submit(std::move(request), sink);
    EXPECT_OK(submitted);
    if (id != nullptr && submitted.ok()) *id = *submitted;
    return sink;
  }
  absl::Status SubmitError(EngineRequest request) {
    return engine_->Submit(std::move(request), std::make_shared<RecordingSink>()).status();
  }
  void TearDown() override {
    engine_.reset();
    if (workers_ == nullptr) return;
    EXPECT_THAT(workers_->errors(), IsEmpty());
  }
  void ExpectAllFree() {
    EXPECT_EQ(engine_->WaitIdle(absl::Seconds(10)), 0);
    EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
    EXPECT_EQ(engine_->stats().running, 0);
    EXPECT_EQ(engine_->stats().waiting, 0);
  }

  std::shared_ptr<FakeWorkers> workers_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_TESTS_UNIT_COORDINATOR_ENGINE_FIXTURE_H_
