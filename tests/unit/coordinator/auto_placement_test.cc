#include "coordinator/placement/auto_placement.h"

#include "coordinator/placement/device_spec.h"
#include "gmock/gmock.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;

class AutoPlacementTest : public PlanFixture {
 protected:
  std::vector<std::string> Where(const std::vector<DeviceInfo>& devices) {
    std::vector<std::string> lines;
    for (const PlacedWorker& worker : PlanOn(devices).workers) {
      lines.push_back(absl::StrCat(worker.device.name, ": ", DescribeOps(config_, worker.ops)));
    }
    return lines;
  }
  Plan PlanOn(const std::vector<DeviceInfo>& devices) {
    return PlanByRules(config_, *file_, nullptr, devices, shape_);
  }
  static std::vector<DeviceInfo> Specs(const std::vector<std::string>& specs) {
    return ParseDeviceSpecs(specs).value();
  }
};

TEST_F(AutoPlacementTest, DevicesOfOneKindShareByTheirSpeed) {
  EXPECT_THAT(Where(Specs({"cuda:0:24GiB:bw=1000GB/s", "cuda:1:24GiB:bw=1000GB/s"})),
              ElementsAre("cuda:0: embedding, layers 0-3", "cuda:1: layers 4-7, norm, lm_head"));
  EXPECT_THAT(Where(Specs({"cuda:0:24GiB:bw=1000GB/s", "cuda:1:24GiB:bw=300GB/s"})),
              ElementsAre("cuda:0: embedding, layers 0-7", "cuda:1: norm, lm_head"));
}

TEST_F(AutoPlacementTest, DenseModelsLieOnGpusAsFarAsTheyFit) {
  EXPECT_THAT(Where(Specs({"cuda:0:24GiB", "cpu:0:64GiB"})),
              ElementsAre("cuda:0: layers 0-7, norm, lm_head", "cpu:0: embedding"));
  std::vector<DeviceInfo> devices = Specs({"cuda:0:24GiB", "cpu:0:64GiB"});
  const Plan whole = PlanOn(devices);
  const PlacedModule& attention = whole.modules[1];
  const PlacedModule& mlp = whole.modules[2];
  ASSERT_EQ(attention.module, "model.layers.0.self_attn");
  const int64_t kv = whole.workers[0].memory.kv / config_.num_hidden_layers;
  devices[0].reserve_bytes = 0;
  // Of this model the cache and the workspace are less than what loading needs in their place.
  const model::WorkerMemory& memory = whole.workers[0].memory;
  ASSERT_GT(memory.load_device, memory.kv + memory.workspace);
  devices[0].memory_bytes =
      memory.needed() + memory.kv - 2 * (attention.packed_bytes + mlp.packed_bytes + kv) - 1;
  EXPECT_THAT(Where(devices),
              ElementsAre("cuda:0: layers 3-7, norm, lm_head", "cpu:0: embedding, layers 0-2"));
  EXPECT_TRUE(Fits(PlanOn(devices)));
  devices[0].memory_bytes = (int64_t{512} << 20) + 1000;
  EXPECT_THAT(Where(devices), ElementsAre("cpu:0: embedding, layers 0-7, norm, lm_head"))
      << "the GPU has no room for anything";
}

TEST_F(AutoPlacementTest, EveryBudgetThatCanBeMetIsMet) {
  const Plan whole = PlanOn(Devices(1));
  const int64_t overhead = whole.workers[0].memory.total() - whole.workers[0].memory.kv -
                           whole.workers[0].memory.weights_packed;
  const int64_t needed = whole.workers[0].memory.total() - overhead;
  int fitting = 0;
  for (int first = 1; first < 16; ++first) {
    std::vector<DeviceInfo> devices = Devices(2);
    devices[0].memory_bytes = overhead + needed * first / 16;
    devices[1].memory_bytes = overhead + needed * (16 - first) / 16 + needed / 8;
    fitting += Fits(PlanOn(devices)) ? 1 : 0;
  }
  EXPECT_GE(fitting, 13) << "a layer is an eighth of the model";
}

}  // namespace
}  // namespace dovetail::coordinator
