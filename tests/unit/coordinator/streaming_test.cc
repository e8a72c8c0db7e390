#include "coordinator/placement/streaming.h"

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

}  // namespace
}  // namespace dovetail::coordinator
