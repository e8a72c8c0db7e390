// Executors with a GPU that fails, or that is too small. Not under TSan, which does not follow the
// fibers of the SIMT shim.
#include <atomic>
#include <filesystem>
#include <future>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "model/memory_plan.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_llama.h"
#include "worker/device/simt_device.h"
#include "worker/executor.h"

namespace dovetail::worker {
namespace {

using ::testing::HasSubstr;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using transport::SequenceStep;
using transport::StepFrame;

class ExecutorDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.gguf = testing::TempFile("executor_device_test.gguf");
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

// Fails from some time on, as a GPU does whose driver has given it up.
class FailingDevice : public SimtDevice {
 public:
  FailingDevice() : SimtDevice(1) {}
  void Break() { broken_.store(true); }
  absl::Status Wait() override {
    return broken_.load() ? absl::InternalError("unspecified launch failure") : SimtDevice::Wait();
  }
  absl::Status AwaitEarlierSignal(int later) override {
    return broken_.load() ? Wait() : SimtDevice::AwaitEarlierSignal(later);
  }

 private:
  std::atomic<bool> broken_{false};
};

TEST_F(ExecutorDeviceTest, TellsWhenItsDeviceIsLost) {
  FailingDevice* device = nullptr;
  options_.make_device = [&](int) {
    auto made = std::make_unique<FailingDevice>();
    device = made.get();
    return made;
  };
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  ASSERT_OK(pipeline->RunStep(Frame(*pipeline)));
  EXPECT_EQ(pipeline->num_lost_devices(), 0);
  device->Break();
  EXPECT_THAT(pipeline->RunStep(Frame(*pipeline)),
              testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
  ASSERT_EQ(pipeline->failures().size(), 1u);
  EXPECT_THAT(pipeline->failures()[0].message(), HasSubstr("unspecified launch failure"));
  for (int i = 0; i < 500 && pipeline->num_lost_devices() == 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_EQ(pipeline->num_lost_devices(), 1);
}

// Somebody else took the GPU's memory after the plan was made: refused with the figures, nothing is
// kept, and the next plan may fit.
class SmallDevice : public SimtDevice {
 public:
  SmallDevice() : SimtDevice(1) {}
  void SetRoom(int64_t bytes) { room_.store(bytes); }
  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override {
    if (held_bytes() + bytes > room_.load()) {
      return absl::ResourceExhaustedError(absl::StrCat("the GPU has no ", bytes, " bytes left"));
    }
    return SimtDevice::Allocate(bytes);
  }

 private:
  std::atomic<int64_t> room_{0};
};

TEST_F(ExecutorDeviceTest, APlanThatDoesNotFitItsDeviceLeavesNothingThere) {
  SmallDevice device;
  std::promise<std::string> failed;
  std::promise<void> loaded;
  ExecutorEvents events;
  int loads = 0;
  events.failed = [&](const absl::Status& status, uint64_t) {
    failed.set_value(status.ToString());
  };
  events.loaded = [&](const LoadResult&) {
    ++loads;
    loaded.set_value();
  };
  events.device_lost = [](const absl::Status&) { ADD_FAILURE() << "it is not"; };
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(options_.gguf));
  ASSERT_OK_AND_ASSIGN(const auto config, model::LoadModelConfig(*file));
  transport::WorkerPlan plan;
  plan.model_path = options_.gguf;
  plan.model_fingerprint = file->fingerprint();
  plan.step_shape = options_.shape;
  plan.route = {{"cuda:0", model::OpsOf(config)}};
  ASSERT_OK_AND_ASSIGN(const auto slots, model::LayOutWeights(config, *file, plan.route[0].ops,
                                                              PackedLayout::kP16Device));
  device.SetRoom(slots.back().offset + slots.back().bytes);  // the weights, and no more
  Executor executor({.worker = "cuda:0", .kernels = *kernels::SelectTable(""), .device = &device},
                    events);
  executor.Load(plan, "", "");
  EXPECT_THAT(failed.get_future().get(),
              ::testing::AllOf(HasSubstr("RESOURCE_EXHAUSTED"), HasSubstr("cuda:0"),
                               HasSubstr("the GPU has no")));
  std::promise<int64_t> held;
  executor.Post([&](ThreadPool*) { held.set_value(device.held_bytes()); });
  EXPECT_EQ(held.get_future().get(), 0);
  device.SetRoom(int64_t{1} << 30);
  executor.Load(plan, "", "");
  loaded.get_future().wait();
  EXPECT_EQ(loads, 1);
  executor.Stop();
  EXPECT_EQ(device.held_bytes(), 0);
}

TEST_F(ExecutorDeviceTest, KeepsItsDeviceWhenAnEpochEnds) {
  options_.make_device = [](int) { return std::make_unique<SimtDevice>(1); };
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  ASSERT_OK(pipeline->RunStep(Frame(*pipeline)));
  ASSERT_OK(pipeline->Reconnect());
  ASSERT_OK(pipeline->RunStep(Frame(*pipeline)));
  EXPECT_TRUE(pipeline->failures().empty());
  EXPECT_EQ(pipeline->num_lost_devices(), 0);
}

}  // namespace
}  // namespace dovetail::worker
