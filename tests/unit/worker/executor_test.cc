#include "worker/executor.h"

#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using transport::SequenceStep;
using transport::StepFrame;

class ExecutorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.gguf = testing::TempFile("executor_test.gguf");
    options_.shape.max_rows = 16;
    testing::WriteTinyLlama(options_.gguf);
  }
  void TearDown() override { std::filesystem::remove(options_.gguf); }

  static StepFrame Frame(LocalPipeline& pipeline) {
    StepFrame frame = pipeline.NewFrame();
    LocalPipeline::AddRows({1, 2, 3}, 0, 3, 0, 1, SequenceStep::kSample, {.temperature = 0},
                           &frame);
    return frame;
  }

  LocalPipelineOptions options_;
};

TEST_F(ExecutorTest, CountsItsSteps) {
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  for (int i = 0; i < 3; ++i) ASSERT_OK(pipeline->RunStep(Frame(*pipeline)));
  // The output is on its way before the step is counted.
  for (int i = 0; i < 100 && pipeline->executor(0).stats().steps < 3; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_EQ(pipeline->executor(0).stats().steps, 3u);
}

TEST_F(ExecutorTest, SeveralStepsInFlightComeBackInOrder) {
  // Quantised, so that TSan sees threads that run ahead while others still read activations.
  testing::WriteTinyLlama(options_.gguf, {.type = WeightType::kQ4_0});
  options_.cuts = {2, 4};
  options_.num_threads = 2;
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  for (int i = 0; i < 8; ++i) {
    StepFrame frame = pipeline->NewFrame();
    LocalPipeline::AddRows({i, 2, 3}, 0, 3, i, 1, SequenceStep::kSample, {.temperature = 0},
                           &frame);
    ASSERT_OK(pipeline->Send(frame));
  }
  for (uint64_t i = 0; i < 8; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto output, pipeline->Receive());
    EXPECT_EQ(output.header.step, i + 1);
    EXPECT_EQ(output.sequences[0].sequence_id, 1000 + i);
  }
}

TEST_F(ExecutorTest, FramesOfAnotherEpochEndTheConnection) {
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  StepFrame frame = Frame(*pipeline);
  frame.header.epoch += 1;
  EXPECT_THAT(pipeline->RunStep(frame),
              testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
  EXPECT_EQ(pipeline->failures().size(), 1u) << "and the coordinator hears why";
}

TEST_F(ExecutorTest, TheEndOfAnEpochIsNoFailure) {
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  pipeline->exchange().Abort();
  EXPECT_THAT(pipeline->RunStep(Frame(*pipeline)),
              testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
  EXPECT_TRUE(pipeline->failures().empty());
}

TEST_F(ExecutorTest, ReportsWhatItCannotLoad) {
  std::promise<std::string> failed;  // no Status: TSan does not see its reference count
  ExecutorEvents events;
  events.failed = [&](const absl::Status& status, uint64_t) {
    failed.set_value(status.ToString());
  };
  Executor executor({.worker = "cpu:0", .kernels = *kernels::SelectTable("")}, events);
  executor.Load({.model_path = "/nowhere/model.gguf"}, "/tmp/w", "/tmp/k");
  EXPECT_THAT(failed.get_future().get(),
              ::testing::AllOf(HasSubstr("cpu:0"), HasSubstr("/nowhere/model.gguf")));
}

TEST_F(ExecutorTest, DoesNotConnectWithoutAPlan) {
  std::promise<std::string> failed;  // no Status: TSan does not see its reference count
  ExecutorEvents events;
  events.failed = [&](const absl::Status& status, uint64_t) {
    failed.set_value(status.ToString());
  };
  Executor executor({.worker = "cpu:0", .kernels = *kernels::SelectTable("")}, events);
  executor.Connect([]() -> absl::StatusOr<std::shared_ptr<transport::Exchange>> {
    ADD_FAILURE() << "opened";
    return absl::InternalError("");
  });
  EXPECT_THAT(failed.get_future().get(),
              ::testing::AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr("no plan")));
}

// Processor time of this process's threads while the pipeline has nothing to do.
TEST_F(ExecutorTest, SleepsWhenIdle) {
  options_.cuts = {3};
  options_.num_threads = 2;
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  ASSERT_OK(pipeline->RunStep(Frame(*pipeline)));
  absl::SleepFor(absl::Milliseconds(100));
  const auto cpu_time = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double before = cpu_time();
  absl::SleepFor(absl::Milliseconds(500));
  EXPECT_LT(cpu_time() - before, 0.02);
  ASSERT_OK(pipeline->RunStep(Frame(*pipeline)));
}

TEST_F(ExecutorTest, StopsWhileConnected) {
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  const absl::Time start = absl::Now();
  pipeline->executor(0).Stop();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

// Outputs that nobody reads fill the ring, and the step waits for room.
TEST_F(ExecutorTest, StopsWhileAStepWaitsForAPeer) {
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  const std::vector<int32_t> tokens(16, 1);
  for (int i = 0; i < 200; ++i) {
    StepFrame frame = pipeline->NewFrame();
    LocalPipeline::AddRows(tokens, 0, 16, 0, 16, SequenceStep::kReturnLogits, {}, &frame);
    ASSERT_OK(pipeline->Send(frame));
  }
  while (pipeline->executor(0).stats().steps < 40) absl::SleepFor(absl::Milliseconds(10));
  const absl::Time start = absl::Now();
  pipeline->executor(0).Stop();
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST_F(ExecutorTest, WeightsStayForTheNextExecutor) {
  options_.segment_dir = ::testing::TempDir() + "executor_test_segments";
  std::filesystem::create_directory(options_.segment_dir);
  int32_t token = -1;
  for (int round = 0; round < 2; ++round) {
    ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
    EXPECT_EQ(pipeline->loads()[0].reattached, round == 1);
    ASSERT_OK_AND_ASSIGN(const auto output, pipeline->RunStep(Frame(*pipeline)));
    if (round == 1) {
      EXPECT_EQ(output.sequences[0].token, token);
    }
    token = output.sequences[0].token;
  }
  std::filesystem::remove_all(options_.segment_dir);
}

// Disconnect, connect to a new epoch, go on: what follows the loss of another worker.
TEST_F(ExecutorTest, ServesOneEpochAfterAnother) {
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  ASSERT_OK_AND_ASSIGN(const auto first, pipeline->RunStep(Frame(*pipeline)));
  pipeline->executor(0).Disconnect(pipeline->exchange().epoch());
  ASSERT_OK(pipeline->Reconnect());
  ASSERT_OK_AND_ASSIGN(const auto second, pipeline->RunStep(Frame(*pipeline)));
  EXPECT_EQ(second.header.epoch, first.header.epoch + 1);
  EXPECT_EQ(second.sequences[0].token, first.sequences[0].token);
  // A late command of the old epoch does not disturb the new one.
  pipeline->executor(0).Disconnect(first.header.epoch);
  EXPECT_OK(pipeline->RunStep(Frame(*pipeline)));
}

}  // namespace
}  // namespace dovetail::worker
