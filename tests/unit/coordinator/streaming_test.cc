#include "coordinator/placement/streaming.h"

#include "coordinator/placement/plan_text.h"
#include "coordinator/placement/speed.h"
#include "gmock/gmock.h"
#include "tests/testing/test_data.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::HasSubstr;

class StreamingTest : public PlanFixture {
 protected:
  void SetUp() override {
    const std::string gguf = testing::DataPath("golden/deepseek3/model-q4_k_m.gguf");
    if (gguf.empty()) GTEST_SKIP() << "no golden models here";
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(gguf));
    ASSERT_OK_AND_ASSIGN(config_, model::LoadModelConfig(*file_));
    shape_.max_rows = 64;
    shape_.max_sequences = 8;
    shape_.max_logit_rows = 8;
    shape_.context_length = 256;
    shape_.num_kv_blocks = 16;
    devices_ = Devices(3);
    devices_[1].name = "simt:0";
    devices_[1].kind = DeviceKind::kSimt;
    devices_[1].layout = PackedLayout::kP16Device;
    devices_[1].upload_bandwidth = 25e9;
    devices_[2].name = "cpu:1";
  }
  Plan MakeIt(const std::string& rules) {
    const absl::StatusOr<RuleSet> set = ParseRules(rules, "r.yaml");
    EXPECT_OK(set.status());
    return MakePlan(config_, *file_, Place(config_, *file_, &*set, devices_, shape_), devices_,
                    shape_);
  }

  std::vector<DeviceInfo> devices_;
};

constexpr char kExpertsOnCpus[] = R"(
- match: {role: experts, experts: 0-3}
  place: cpu:0
- match: {role: experts}
  place: cpu:1
- match: {}
  place: simt:0
)";

TEST_F(StreamingTest, CountsWhatAStepReadsAndWhatItNeeds) {
  const Plan without = MakeIt(kExpertsOnCpus);
  EXPECT_OK(ErrorsToStatus(without.diagnostics));
  EXPECT_EQ(StreamCostOf(without).bytes, 0);
  shape_.stream_bytes = 1 << 20;
  const Plan plan = MakeIt(kExpertsOnCpus);
  EXPECT_OK(ErrorsToStatus(plan.diagnostics));
  const StreamCost cost = StreamCostOf(plan);
  int64_t on_cpus = 0;
  for (const PlacedWorker& worker : plan.workers) {
    if (worker.device.kind == DeviceKind::kCpu) on_cpus += worker.memory.weights_packed;
  }
  EXPECT_GT(cost.bytes, on_cpus * 9 / 10) << "all experts, but not the norms beside them";
  EXPECT_LE(cost.bytes, on_cpus);
  EXPECT_EQ(cost.bytes_per_second, 25e9);
  const auto workspace = [](const Plan& p) {
    for (const PlacedWorker& worker : p.workers) {
      if (worker.device.name == "simt:0") return worker.memory.workspace;
    }
    return int64_t{0};
  };
  EXPECT_GE(workspace(plan), workspace(without) + 2 * shape_.stream_bytes);
}

TEST_F(StreamingTest, SaysWhatCannotBeStreamed) {
  shape_.stream_bytes = 4096;
  EXPECT_THAT(ErrorsToStatus(MakeIt(kExpertsOnCpus).diagnostics).message(),
              HasSubstr("`stream_buffer` is 4.0 KiB, a matrix of one expert has"));
  shape_.stream_bytes = 1 << 20;
  const Plan nothing = MakeIt("- match: {}\n  place: simt:0\n");
  ASSERT_EQ(nothing.diagnostics.size(), 1u);
  EXPECT_EQ(nothing.diagnostics[0].code, "nothing-streamed");
  EXPECT_EQ(nothing.diagnostics[0].severity, Severity::kWarning);
  devices_[2].layout = PackedLayout::kInPlace;
  EXPECT_THAT(ErrorsToStatus(MakeIt(kExpertsOnCpus).diagnostics).message(),
              HasSubstr("the experts of cpu:1 are not packed (in_place)"));
}

class StreamedSpeedTest : public StreamingTest {
 protected:
  void SetUp() override {
    StreamingTest::SetUp();
    if (IsSkipped()) return;
    for (DeviceInfo& device : devices_) {
      device.bandwidth = 1e12;
      device.int8_ops = device.has_gpu_kernels() ? 1e15 : 1e9;
    }
    devices_[1].upload_bandwidth = 1e6;
  }
  PlanSpeed Predict() { return PredictSpeed(config_, MakeIt(kExpertsOnCpus)); }
  double Chunk() const { return shape_.max_rows - shape_.max_sequences; }
};

TEST_F(StreamedSpeedTest, IsThatOfTheBusWhereTheGpuIsFaster) {
  const PlanSpeed off = Predict();
  shape_.stream_bytes = 1 << 20;
  const Plan plan = MakeIt(kExpertsOnCpus);
  const PlanSpeed on = PredictSpeed(config_, plan);
  EXPECT_EQ(off.streamed_prefill_tokens_per_s, on.streamed_prefill_tokens_per_s);
  const double bus = static_cast<double>(StreamCostOf(plan).bytes) / 1e6;
  EXPECT_NEAR(Chunk() / on.streamed_prefill_tokens_per_s, bus, 0.01 * bus);

  devices_[1].int8_ops = 1e6;
  EXPECT_LT(Predict().streamed_prefill_tokens_per_s, 0.1 * on.streamed_prefill_tokens_per_s);
}

TEST_F(StreamedSpeedTest, IsInThePlanForPeople) {
  const auto text = [&] {
    const Plan plan = MakeIt(kExpertsOnCpus);
    return PlanText(config_, plan, PredictSpeed(config_, plan), {});
  };
  EXPECT_THAT(text(), HasSubstr("  with experts streamed (`stream_experts`, off here): prefill "));
  EXPECT_THAT(text(), HasSubstr("tokens/s, not faster in steps of `chunk_size` (56)\n"));
  EXPECT_THAT(text(), HasSubstr("simt:0 1000 GB/s, 1000000 Gop/s, bus 0 GB/s"));
  shape_.stream_bytes = 1 << 20;
  devices_[1].upload_bandwidth = 1e12;
  EXPECT_THAT(text(), HasSubstr("(`stream_experts`, on): prefill "));
  EXPECT_THAT(text(), HasSubstr("tokens/s, faster in steps of "));
  EXPECT_THAT(text(), HasSubstr("bus 1000 GB/s"));
}

TEST_F(StreamedSpeedTest, SaysFromHowManyTokensItIsWorthIt) {
  devices_[0].int8_ops = devices_[2].int8_ops = 1e12;  // faster than the bus, whatever the step
  EXPECT_EQ(Predict().streamed_from_tokens, 0);
  // So slow that a whole chunk takes the processors four times as long as the bus.
  devices_[0].int8_ops = devices_[2].int8_ops = 1e6;
  const PlanSpeed some = Predict();
  const double ratio = some.streamed_prefill_tokens_per_s / some.prefill_tokens_per_s;
  devices_[0].int8_ops = devices_[2].int8_ops = 1e6 * ratio / 4;
  const PlanSpeed slow = Predict();
  EXPECT_NEAR(slow.streamed_prefill_tokens_per_s / slow.prefill_tokens_per_s, 4, 0.1);
  EXPECT_NEAR(static_cast<double>(slow.streamed_from_tokens), Chunk() / 4 / StreamChoice::kWorthIt,
              1.1);
}

TEST_F(StreamedSpeedTest, IsNoneWhereNothingCanBeStreamed) {
  const PlanSpeed nothing = PredictSpeed(config_, MakeIt("- match: {}\n  place: simt:0\n"));
  EXPECT_EQ(nothing.streamed_prefill_tokens_per_s, 0);
  EXPECT_GT(Predict().streamed_prefill_tokens_per_s, 0);
  devices_[0].layout = devices_[2].layout = PackedLayout::kInPlace;
  EXPECT_EQ(Predict().streamed_prefill_tokens_per_s, 0) << "no GPU reads what is not packed";
}

}  // namespace
}  // namespace dovetail::coordinator
