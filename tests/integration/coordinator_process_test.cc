// The whole coordinator with worker processes of its own and a tiny model.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/coordinator.h"
#include "coordinator/service/grpc_server.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr absl::Duration kPatience = absl::Seconds(60);

// Collects one generation.
class Answer : public EventSink {
 public:
  void OnEvent(const GenerationEvent& event) override {
    absl::MutexLock lock(&mutex_);
    tokens_.insert(tokens_.end(), event.tokens.begin(), event.tokens.end());
    if (!event.finished) return;
    finished_ = true;
    finished_at_ = absl::Now();
    status_ = event.status;
  }
  bool WaitTokens(size_t count) {
    absl::MutexLock lock(&mutex_);
    auto enough = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return finished_ || tokens_.size() >= count;
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience);
  }
  bool WaitFinished() {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&finished_), kPatience);
  }
  bool finished() {
    absl::MutexLock lock(&mutex_);
    return finished_;
  }
  std::vector<int32_t> tokens() {
    absl::MutexLock lock(&mutex_);
    return tokens_;
  }
  absl::Status status() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }
  absl::Time finished_at() {
    absl::MutexLock lock(&mutex_);
    return finished_at_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<int32_t> tokens_;
  bool finished_ = false;
  absl::Time finished_at_;
  absl::Status status_;
};

class CoordinatorProcessTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_OK(InitLogging("coordinator", "warn")); }

  void SetUp() override {
    const char* bin = std::getenv("DOVETAIL_BIN");
    if (bin == nullptr) GTEST_SKIP() << "DOVETAIL_BIN is not set (ctest sets it)";
    options_.worker_binary = absl::StrCat(bin, "/dovetail-worker");
    dir_ = absl::StrCat(::testing::TempDir(), "/coordinator-", ::getpid(), "-", ++counter_);
    std::filesystem::create_directories(dir_);
    testing::TinyLlamaOptions tiny;
    tiny.context = 8192;
    testing::WriteTinyLlama(dir_ + "/tiny.gguf", tiny);
    config_.model = dir_ + "/tiny.gguf";
    config_.workers = {"cpu:0", "cpu:1"};
    config_.threads = 1;
    config_.run_dir = dir_ + "/run";
    config_.port = 0;
    config_.log_level = "warn";
  }
  void TearDown() override {
    if (dir_.empty()) return;
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a worker is left";
    EXPECT_FALSE(std::filesystem::exists(dir_ + "/run"));
    std::filesystem::remove_all(dir_);
  }

  std::shared_ptr<Answer> Ask(Coordinator* coordinator, int64_t max_tokens) {
    auto answer = std::make_shared<Answer>();
    GenerationRequest request;
    request.input = std::vector<int32_t>{3, 4, 5};
    request.temperature = 0;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    EXPECT_OK(coordinator->model().generation()->Start(request, answer));
    return answer;
  }

  static inline int counter_ = 0;
  std::string dir_;
  ServeConfig config_;
  CoordinatorOptions options_;
};

TEST_F(CoordinatorProcessTest, StreamsGoOnWhenAWorkerIsKilled) {
  ASSERT_OK_AND_ASSIGN(auto coordinator, Coordinator::Start(config_, options_));
  ASSERT_OK(coordinator->WaitReady(kPatience));
  const StatusSnapshot ready = coordinator->Status();
  EXPECT_EQ(ready.state, ServingState::kReady);
  EXPECT_EQ(ready.model, "tiny");
  EXPECT_EQ(ready.epoch, 1u);
  ASSERT_THAT(ready.workers, SizeIs(2));
  ASSERT_OK_AND_ASSIGN(const Plan plan, coordinator->model().CurrentPlan());
  EXPECT_THAT(plan.route, SizeIs(2));
  EXPECT_GT(coordinator->http_port(), 0);
  EXPECT_GT(coordinator->grpc_port(), 0);

  auto first = Ask(coordinator.get(), 20);
  ASSERT_TRUE(first->WaitFinished());
  EXPECT_OK(first->status());
  EXPECT_THAT(first->tokens(), SizeIs(20));

  auto whole = Ask(coordinator.get(), 2000);
  ASSERT_TRUE(whole->WaitFinished());
  uint64_t kills = 0;
  for (const size_t worker : {1, 0}) {
    for (const size_t position : {1, 5, 40}) {
      auto stream = Ask(coordinator.get(), 2000);
      ASSERT_TRUE(stream->WaitTokens(position));
      ASSERT_FALSE(stream->finished());
      const StatusSnapshot before = coordinator->Status();
      ASSERT_EQ(::kill(static_cast<pid_t>(before.workers[worker].pid), SIGKILL), 0);
      ASSERT_TRUE(stream->WaitFinished());
      EXPECT_OK(stream->status());
      EXPECT_EQ(stream->tokens(), whole->tokens()) << "killed " << worker << " at " << position;
      ++kills;
      ASSERT_OK(coordinator->WaitReady(kPatience));
      const StatusSnapshot after = coordinator->Status();
      EXPECT_EQ(after.epoch, 1 + kills);
      EXPECT_EQ(after.workers[1 - worker].pid, before.workers[1 - worker].pid);
      EXPECT_NE(after.workers[worker].pid, before.workers[worker].pid);
      EXPECT_EQ(after.engine.recoveries, kills);
      std::cout << "killed " << after.workers[worker].name << " at token " << position
                << ": back after " << after.engine.recovery_seconds - before.engine.recovery_seconds
                << " s\n";
    }
  }
  auto second = Ask(coordinator.get(), 20);
  ASSERT_TRUE(second->WaitFinished());
  EXPECT_OK(second->status());
  EXPECT_EQ(second->tokens(), first->tokens());
  EXPECT_EQ(coordinator->Shutdown(absl::Seconds(5)), 0);
}

TEST_F(CoordinatorProcessTest, DrainsBeforeItStops) {
  ASSERT_OK_AND_ASSIGN(auto coordinator, Coordinator::Start(config_, options_));
  ASSERT_OK(coordinator->WaitReady(kPatience));
  auto answer = Ask(coordinator.get(), 300);
  ASSERT_TRUE(answer->WaitTokens(1));
  EXPECT_EQ(coordinator->Drain(kPatience), 0);
  ASSERT_TRUE(answer->WaitFinished());
  EXPECT_OK(answer->status());
  EXPECT_THAT(answer->tokens(), SizeIs(300));
  EXPECT_EQ(coordinator->Status().state, ServingState::kDraining);
  GenerationRequest request;
  request.input = std::vector<int32_t>{3};
  EXPECT_THAT(coordinator->model().generation()->Start(request, std::make_shared<Answer>()),
              StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
}

TEST_F(CoordinatorProcessTest, CutsOffWhatDoesNotEndInTime) {
  ASSERT_OK_AND_ASSIGN(auto coordinator, Coordinator::Start(config_, options_));
  ASSERT_OK(coordinator->WaitReady(kPatience));
  auto answer = Ask(coordinator.get(), 8000);
  ASSERT_TRUE(answer->WaitTokens(1));
  EXPECT_EQ(coordinator->Shutdown(absl::Milliseconds(10)), 1);
  ASSERT_TRUE(answer->WaitFinished());
  EXPECT_THAT(answer->status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
}

TEST_F(CoordinatorProcessTest, MeasuringCommandsNeedNoClientPorts) {
  options_.serve_clients = false;
  ASSERT_OK_AND_ASSIGN(auto coordinator, Coordinator::Start(config_, options_));
  ASSERT_OK(coordinator->WaitReady(kPatience));
  EXPECT_EQ(coordinator->http_port(), 0);
  auto answer = Ask(coordinator.get(), 5);
  ASSERT_TRUE(answer->WaitFinished());
  EXPECT_OK(answer->status());
}

TEST_F(CoordinatorProcessTest, TooLittleMemoryIsRefusedWithFigures) {
  config_.memory["cpu:1"] = 1 << 20;
  ASSERT_OK_AND_ASSIGN(auto coordinator, Coordinator::Start(config_, options_));
  EXPECT_THAT(
      coordinator->WaitReady(kPatience),
      StatusIs(absl::StatusCode::kResourceExhausted, AllOf(HasSubstr("cpu:1"), HasSubstr("MiB"))));
  EXPECT_EQ(coordinator->Status().state, ServingState::kFailed);
  EXPECT_EQ(coordinator->WaitStopped(nullptr).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(CoordinatorProcessTest, AWorkerThatKeepsDyingIsReported) {
  options_.worker_binary = dir_ + "/broken-worker";
  std::ofstream(options_.worker_binary) << "#!/bin/sh\necho the device is on fire\nexit 7\n";
  std::filesystem::permissions(options_.worker_binary, std::filesystem::perms::owner_all);
  config_.workers = {"cpu:0"};
  ASSERT_OK_AND_ASSIGN(auto coordinator, Coordinator::Start(config_, options_));
  EXPECT_THAT(coordinator->WaitReady(kPatience),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("exit status 7"), HasSubstr("on fire"))));
}

TEST_F(CoordinatorProcessTest, WhatCannotStartSaysWhyAndLeavesNothing) {
  {
    CoordinatorOptions options = options_;
    options.worker_binary = "/nowhere/dovetail-worker";
    EXPECT_THAT(Coordinator::Start(config_, options),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/dovetail-worker")));
  }
  {
    ASSERT_OK_AND_ASSIGN(auto other, GrpcServer::Start({}, {}));
    ServeConfig config = config_;
    config.grpc_port = other->port();
    EXPECT_THAT(Coordinator::Start(config, options_),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         absl::StrCat("port ", other->port(), " on 127.0.0.1 is in use")));
    config.grpc_port = 0;
    config.port = other->port();
    EXPECT_THAT(Coordinator::Start(config, options_),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         absl::StrCat("port ", other->port(), " on 127.0.0.1 is in use")));
  }
  {
    ServeConfig config = config_;
    config.context_length = 100'000;
    EXPECT_THAT(Coordinator::Start(config, options_),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("100000"), HasSubstr("8192"))));
  }
  {
    ServeConfig config = config_;
    config.rules = dir_ + "/rules.yaml";
    std::ofstream(config.rules) << "- match: {layers: 0-1}\n  place: cpu:7\n";
    EXPECT_THAT(Coordinator::Start(config, options_),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("rules.yaml:2:"), HasSubstr("cpu:7"))));
  }
  {
    ServeConfig config = config_;
    config.model = dir_ + "/absent.gguf";
    EXPECT_THAT(Coordinator::Start(config, options_),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent.gguf")));
  }
}

TEST_F(CoordinatorProcessTest, TwoCoordinatorsDoNotShareARunDirectory) {
  ASSERT_OK_AND_ASSIGN(auto coordinator, Coordinator::Start(config_, options_));
  EXPECT_THAT(Coordinator::Start(config_, options_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(config_.run_dir)));
  EXPECT_OK(coordinator->WaitReady(kPatience)) << "the second must not disturb the first";
}

}  // namespace
}  // namespace dovetail::coordinator
