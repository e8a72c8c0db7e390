#include "coordinator/placement/speed.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

class SpeedTest : public PlanFixture {
 protected:
  PlanSpeed On(int num_devices, double bandwidth) {
    std::vector<DeviceInfo> devices = Devices(num_devices);
    for (DeviceInfo& device : devices) {
      device.bandwidth = bandwidth;
      device.int8_ops = 1e15;
    }
    return PredictSpeed(config_, PlanByRules(config_, *file_, nullptr, devices, shape_));
  }
};

TEST_F(SpeedTest, DecodeReadsEveryWeightOnce) {
  const Plan plan = PlanByRules(config_, *file_, nullptr, Devices(1), shape_);
  double bytes = 0;
  int64_t packed = 0;
  for (const PlacedModule& module : plan.modules) {
    bytes += BytesRead(config_, module, 1);
    packed += module.packed_bytes;
  }
  const auto kv_block = model::KvBytesPerBlockPerLayer(config_, shape_.kv_type);
  const double kv =
      1024.0 / kKvBlockTokens * static_cast<double>(kv_block) * config_.num_hidden_layers;
  const PlanSpeed speed = On(1, 1e6);
  EXPECT_NEAR(1 / speed.decode_tokens_per_s, (bytes + kv) / 1e6 + speed.hop_seconds, 1e-9);
  EXPECT_LT(bytes, static_cast<double>(packed)) << "of the embedding one row";
}

TEST_F(SpeedTest, OfExpertsTheChosenOnesAreRead) {
  testing::TinyLlamaOptions options;
  options.experts = 8;
  options.experts_used = 2;
  Open(options);
  const Plan plan = PlanByRules(config_, *file_, nullptr, Devices(1), shape_);
  const PlacedModule* experts = nullptr;  // the largest module
  for (const PlacedModule& module : plan.modules) {
    if (experts == nullptr || module.packed_bytes > experts->packed_bytes) experts = &module;
  }
  const double one = BytesRead(config_, *experts, 1);
  const double many = BytesRead(config_, *experts, 1000);
  EXPECT_NEAR(one / static_cast<double>(experts->packed_bytes), 0.25, 0.03);
  EXPECT_NEAR(many, static_cast<double>(experts->packed_bytes), 1);
  EXPECT_LT(BytesRead(config_, *experts, 2), 2 * one) << "two rows share some";
}

// A quarter of each layer's experts on cuda:0, which has everything else, and the others elsewhere.
class DividedExperts : public SpeedTest {
 protected:
  struct Seconds {
    double pass, devices, experts_here, experts_there;
  };
  // Of one token, where cuda:0 reads `bandwidth` bytes a second and the other device as many as it
  // always does.
  Seconds With(const std::string& others, double bandwidth) {
    testing::TinyLlamaOptions options;
    options.experts = 8;
    options.experts_used = 2;
    Open(options);
    std::vector<DeviceInfo> devices = Devices(2);
    devices[0].name = "cuda:0";
    devices[1].name = others;
    for (DeviceInfo& device : devices) {
      device.kind = *KindOf(device.name);
      device.int8_ops = 1e15;
      device.bandwidth = kOthersBandwidth;
    }
    devices[0].bandwidth = bandwidth;
    const std::string rules = absl::StrCat("- {match: {role: experts}, split: {cuda:0: 1, ", others,
                                           ": 3}, by: experts}\n- {match: {}, place: cuda:0}\n");
    const RuleSet set = ParseRules(rules, "r.yaml").value();
    const Plan plan = PlanByRules(config_, *file_, &set, devices, shape_);
    const PlanSpeed speed = PredictSpeed(config_, plan);
    Seconds seconds = {.pass = 1 / speed.decode_tokens_per_s - speed.hop_seconds};
    for (const DeviceSpeed& device : speed.devices) seconds.devices += device.decode_seconds;
    for (const PlacedModule& module : plan.modules) {
      if (module.op.kind != OpKind::kExperts) continue;
      const double bytes = BytesRead(config_, module, 1);
      (module.device == others ? seconds.experts_there : seconds.experts_here) +=
          bytes / (module.device == others ? kOthersBandwidth : bandwidth);
    }
    return seconds;
  }
  static constexpr double kOthersBandwidth = 1e6;
};

TEST_F(DividedExperts, OfAGpuAreComputedBesideThoseOfAProcessor) {
  const Seconds fast = With("cpu:0", 1e6);
  EXPECT_LT(fast.experts_here, fast.experts_there);
  EXPECT_NEAR(fast.pass, fast.devices - fast.experts_here, 1e-9);
  const Seconds slow = With("cpu:0", 1e5);
  EXPECT_GT(slow.experts_here, slow.experts_there);
  EXPECT_NEAR(slow.pass, slow.devices - slow.experts_there, 1e-9);
}

TEST_F(DividedExperts, AreComputedInTurnByGpus) {
  const Seconds gpus = With("cuda:1", 1e6);
  EXPECT_GT(gpus.experts_there, 0);
  EXPECT_NEAR(gpus.pass, gpus.devices, 1e-9);
}

TEST_F(SpeedTest, DevicesThatShareRowsHelpOneSequence) {
  const auto rate = [&](const std::string& rules, int count) {
    std::vector<DeviceInfo> devices = Devices(count);
    for (DeviceInfo& device : devices) device.bandwidth = 1e7;
    const RuleSet set = ParseRules(rules, "r.yaml").value();
    const Plan plan = PlanByRules(config_, *file_, &set, devices, shape_);
    return PredictSpeed(config_, plan).decode_tokens_per_s;
  };
  const double one = rate("- {match: {}, place: cpu:0}\n", 1);
  EXPECT_NEAR(rate("- {match: {}, split: [cpu:0, cpu:1], by: rows}\n", 2) / one, 2, 0.1);
  EXPECT_NEAR(rate("- {match: {}, split: {cpu:0: 3, cpu:1: 1}, by: rows}\n", 2) / one, 1.33, 0.05);
}

TEST_F(SpeedTest, MoreDevicesHelpManySequencesAndNotOne) {
  const PlanSpeed one = On(1, 1e7);
  const PlanSpeed two = On(2, 1e7);
  EXPECT_NEAR(two.decode_tokens_per_s / one.decode_tokens_per_s, 1, 0.01);
  EXPECT_GT(two.batched_decode_tokens_per_s, 1.1 * one.batched_decode_tokens_per_s);
  EXPECT_GT(one.batched_decode_tokens_per_s, one.decode_tokens_per_s);
  EXPECT_GT(one.prefill_tokens_per_s, one.decode_tokens_per_s);
}

TEST_F(SpeedTest, SaysWhatIsAssumed) {
  const Plan plan = PlanByRules(config_, *file_, nullptr, Devices(1), shape_);
  const PlanSpeed speed = PredictSpeed(config_, plan);
  ASSERT_EQ(speed.devices.size(), 1u);
  EXPECT_EQ(speed.devices[0].bandwidth_basis, Basis::kAssumed);
  EXPECT_EQ(speed.devices[0].ops_basis, Basis::kAssumed);
  EXPECT_EQ(On(1, 1e9).devices[0].bandwidth_basis, Basis::kGiven);
}

}  // namespace
}  // namespace dovetail::coordinator
