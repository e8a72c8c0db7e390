// The same request with the same seed gives the same tokens: alone, among 32 others, after a
// preemption by swap and by recomputation, with a prefix hit and a miss, with one worker and with
// three, with one lane and with several. Real processes, a tiny model.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/log.h"
#include "coordinator/coordinator.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(120);
constexpr int kAnswerTokens = 60;

class Answer : public TokenSink {
 public:
  void OnToken(int32_t token) override {
    absl::MutexLock lock(&mutex_);
    tokens_.push_back(token);
  }
  void OnFinish(FinishReason, const absl::Status& status, const RequestUsage& usage) override {
    absl::MutexLock lock(&mutex_);
    status_ = status;
    usage_ = usage;
    finished_ = true;
  }
  std::vector<int32_t> Wait() {
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&finished_), kPatience));
    EXPECT_OK(status_);
    return tokens_;
  }
  int cached_tokens() {
    absl::MutexLock lock(&mutex_);
    return usage_.cached_tokens;
  }

 private:
  absl::Mutex mutex_;
  bool finished_ = false;
  std::vector<int32_t> tokens_;
  absl::Status status_;
  RequestUsage usage_;
};

// Sampled, not greedy: what is drawn depends on every bit of the logits.
EngineRequest Request(int number) {
  EngineRequest request;
  request.prompt.resize(20 + 13 * number % 90);
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    request.prompt[i] = static_cast<int32_t>(5 + (7 * i + 3 * number) % 40);
  }
  request.sampling.temperature = 1.2f;
  request.sampling.top_p = 0.95f;
  request.sampling.seed = 1000 + number;
  request.max_tokens = kAnswerTokens;
  return request;
}

class DeterminismTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_OK(InitLogging("determinism", "warn")); }

  void SetUp() override {
    const char* bin = std::getenv("DOVETAIL_BIN");
    if (bin == nullptr) GTEST_SKIP() << "DOVETAIL_BIN is not set (ctest sets it)";
    options_.worker_binary = absl::StrCat(bin, "/dovetail-worker");
    options_.serve_clients = false;
    dir_ = absl::StrCat(::testing::TempDir(), "/determinism-", ::getpid());
    std::filesystem::create_directories(dir_);
    testing::TinyLlamaOptions tiny;
    tiny.context = 512;
    testing::WriteTinyLlama(dir_ + "/tiny.gguf", tiny);
    config_.model = dir_ + "/tiny.gguf";
    config_.threads = 1;
    config_.run_dir = dir_ + "/run";
    config_.port = 0;
    config_.log_level = "warn";
    config_.context_length = 256;
    config_.kv_tokens = 8192;
    config_.chunk_size = 64;
    config_.max_batch_size = 40;
  }
  void TearDown() override {
    coordinator_ = nullptr;
    if (!dir_.empty()) std::filesystem::remove_all(dir_);
  }

  void Start(const ServeConfig& config) {
    coordinator_ = nullptr;
    absl::StatusOr<std::unique_ptr<Coordinator>> started = Coordinator::Start(config, options_);
    ASSERT_OK(started.status());
    coordinator_ = *std::move(started);
    ASSERT_OK(coordinator_->WaitReady(kPatience));
  }
  std::shared_ptr<Answer> Submit(int number) {
    auto answer = std::make_shared<Answer>();
    EXPECT_OK(coordinator_->model().engine()->Submit(Request(number), answer).status());
    return answer;
  }
  // The tokens of the requests 0 to 32, all at once.
  std::vector<std::vector<int32_t>> AskAll() {
    std::vector<std::shared_ptr<Answer>> answers;
    for (int i = 0; i <= 32; ++i) answers.push_back(Submit(i));
    std::vector<std::vector<int32_t>> tokens;
    for (auto& answer : answers) tokens.push_back(answer->Wait());
    return tokens;
  }
  void ExpectAllFree() {
    EXPECT_EQ(coordinator_->model().engine()->WaitIdle(kPatience), 0);
    EXPECT_EQ(Stats().kv_blocks_used, 0);
    EXPECT_EQ(Stats().swap_blocks_used, 0);
  }
  EngineStats Stats() { return coordinator_->model().engine()->stats(); }

  std::string dir_;
  ServeConfig config_;
  CoordinatorOptions options_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(DeterminismTest, TheSameRequestGivesTheSameTokens) {
  Start(config_);
  std::vector<std::vector<int32_t>> alone;
  for (int i = 0; i <= 32; ++i) alone.push_back(Submit(i)->Wait());
  EXPECT_THAT(alone[0], ::testing::SizeIs(kAnswerTokens));
  EXPECT_NE(alone[0], alone[1]);

  auto again = Submit(6);  // 98 tokens
  EXPECT_EQ(again->Wait(), alone[6]) << "with a prefix hit";
  EXPECT_GE(again->cached_tokens(), 64);
  EXPECT_EQ(AskAll(), alone) << "among 32 others";
  ExpectAllFree();

  for (const Preemption preemption : {Preemption::kSwap, Preemption::kRecompute}) {
    ServeConfig tight = config_;
    tight.kv_tokens = 768;
    tight.kv_swap_tokens = 2048;
    tight.preemption = preemption;
    Start(tight);
    EXPECT_EQ(AskAll(), alone) << "after preemptions";
    ExpectAllFree();
    EXPECT_GT(Stats().preemptions, 0u);
    EXPECT_EQ(Stats().preemptions_by_swap > 0, preemption == Preemption::kSwap);
  }

  ServeConfig three = config_;
  three.workers = {"cpu:0", "cpu:1", "cpu:2"};
  three.lanes = 3;
  Start(three);
  EXPECT_EQ(AskAll(), alone) << "with three workers and lanes";
  three.kv_tokens = 768;
  three.kv_swap_tokens = 2048;
  three.preemption = Preemption::kSwap;
  three.lanes = 0;
  Start(three);
  EXPECT_EQ(AskAll(), alone) << "with three workers and swaps";
  EXPECT_GT(Stats().preemptions_by_swap, 0u);
  ExpectAllFree();
}

}  // namespace
}  // namespace dovetail::coordinator
