#include "coordinator/placement/suggestions.h"

#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SuggestionsTest : public PlanFixture {
 protected:
  Plan PlanOn(const std::vector<DeviceInfo>& devices) {
    return PlanByRules(config_, *file_, nullptr, devices, shape_);
  }
  std::vector<Suggestion> For(const std::vector<DeviceInfo>& devices) {
    return NearestFits(config_, *file_, PlanOn(devices));
  }
  static std::string Value(const std::vector<Suggestion>& suggestions, const std::string& setting) {
    for (const Suggestion& suggestion : suggestions) {
      for (const auto& [name, value] : suggestion.settings) {
        if (name == setting) return value;
      }
    }
    return "none";
  }
  static int Number(const std::string& text) {
    int number = 0;
    EXPECT_TRUE(absl::SimpleAtoi(text, &number)) << text;
    return number;
  }
  bool FitsOn(const std::vector<DeviceInfo>& devices) { return Fits(PlanOn(devices)); }
};

TEST_F(SuggestionsTest, NothingWhereThePlanFits) { EXPECT_THAT(For(Devices(2)), IsEmpty()); }

TEST_F(SuggestionsTest, EachSettingIsTheNearestThatFitsAlone) {
  shape_.max_rows = 4096 + 64;
  shape_.max_sequences = shape_.max_logit_rows = 64;
  shape_.num_kv_blocks = 512;
  std::vector<DeviceInfo> devices = Devices(1);
  devices[0].memory_bytes = PlanOn(devices).workers[0].memory.total() - (int64_t{64} << 10);
  const std::vector<Suggestion> suggestions = For(devices);

  const StepShape whole = shape_;
  shape_.max_rows = Number(Value(suggestions, "chunk_size")) + 64;
  EXPECT_TRUE(FitsOn(devices));
  ++shape_.max_rows;
  EXPECT_FALSE(FitsOn(devices)) << "chunk_size is not the nearest";

  shape_ = whole;
  const int batch = Number(Value(suggestions, "max_batch_size"));
  const auto with_batch = [&](int value) {
    shape_.max_rows = 4096 + value;
    shape_.max_sequences = shape_.max_logit_rows = value;
    return FitsOn(devices);
  };
  EXPECT_TRUE(with_batch(batch));
  EXPECT_FALSE(with_batch(batch + 1)) << "max_batch_size is not the nearest";

  shape_ = whole;
  shape_.num_kv_blocks = Number(Value(suggestions, "kv_tokens")) / kKvBlockTokens;
  EXPECT_TRUE(FitsOn(devices));
  ++shape_.num_kv_blocks;
  EXPECT_FALSE(FitsOn(devices)) << "kv_tokens is not the nearest";
}

TEST_F(SuggestionsTest, AnotherKvType) {
  shape_.kv_type = KvType::kF32;
  std::vector<DeviceInfo> devices = Devices(1);
  const model::WorkerMemory memory = PlanOn(devices).workers[0].memory;
  devices[0].memory_bytes = memory.total() - memory.kv / 2;
  EXPECT_EQ(Value(For(devices), "kv_type"), "f16");
  devices[0].memory_bytes -= 64;
  EXPECT_EQ(Value(For(devices), "kv_type"), "q8_0") << "the next one";
  devices[0].memory_bytes = memory.total() - memory.kv;
  EXPECT_EQ(Value(For(devices), "kv_type"), "none") << "not enough alone";
}

TEST_F(SuggestionsTest, MovesTheFewestLayersToWhereThereIsRoom) {
  std::vector<DeviceInfo> devices = Devices(2);
  const Plan whole = PlanOn(devices);
  ASSERT_EQ(DescribeOps(config_, whole.workers[0].ops), "embedding, layers 0-3");
  const RuleSet rules = ParseRules("- {match: {}, split: {cpu:0: 4, cpu:1: 4}}\n", "r").value();
  const int64_t layer = whole.modules[1].packed_bytes + whole.modules[2].packed_bytes;
  devices[0].memory_bytes = whole.workers[0].memory.total() - layer;
  const std::vector<Suggestion> suggestions =
      NearestFits(config_, *file_, PlanByRules(config_, *file_, &rules, devices, shape_));
  EXPECT_EQ(Value(suggestions, "layers"), "3");
  EXPECT_EQ(Value(suggestions, "from"), "cpu:0");
  EXPECT_EQ(Value(suggestions, "to"), "cpu:1");
  std::vector<std::string> messages;
  for (const Suggestion& suggestion : suggestions) messages.push_back(suggestion.message);
  EXPECT_THAT(messages, Contains("layer 3 on cpu:1 instead of cpu:0"));
}

TEST_F(SuggestionsTest, MovesTheExpertsOfTheFewestLayers) {
  Open({.experts = 8});
  std::vector<DeviceInfo> devices = Devices(2);
  const RuleSet rules = ParseRules(
                            "- {match: {role: embedding}, place: cpu:1}\n"
                            "- {match: {}, place: cpu:0}\n",
                            "r")
                            .value();
  const auto plan = [&] { return PlanByRules(config_, *file_, &rules, devices, shape_); };
  int64_t experts = 0;
  for (const PlacedModule& module : plan().modules) {
    if (module.op.kind == OpKind::kExperts && module.op.layer == 0) experts = module.packed_bytes;
  }
  for (PlacedWorker& worker : plan().workers) {
    if (worker.device.name == "cpu:0") {
      devices[0].memory_bytes = worker.memory.total() - 3 * experts / 2;
    }
  }
  const std::vector<Suggestion> suggestions = NearestFits(config_, *file_, plan());
  EXPECT_EQ(Value(suggestions, "experts"), "6-7");
  std::vector<std::string> messages;
  for (const Suggestion& suggestion : suggestions) messages.push_back(suggestion.message);
  EXPECT_THAT(messages, Contains("the experts of layers 6-7 on cpu:1 instead of cpu:0"));
}

TEST_F(SuggestionsTest, TogetherWhereNothingHelpsAlone) {
  shape_.max_rows = 1024 + 64;
  shape_.max_sequences = shape_.max_logit_rows = 64;
  shape_.num_kv_blocks = 256;
  std::vector<DeviceInfo> devices = Devices(1);
  const model::WorkerMemory memory = PlanOn(devices).workers[0].memory;
  devices[0].memory_bytes = memory.total() - memory.kv - memory.workspace / 2;
  const std::vector<Suggestion> suggestions = For(devices);
  ASSERT_EQ(suggestions.size(), 1u);
  EXPECT_THAT(suggestions[0].message, HasSubstr("together: chunk_size "));
  const int chunk = Number(Value(suggestions, "chunk_size"));
  shape_.max_sequences = shape_.max_logit_rows = Number(Value(suggestions, "max_batch_size"));
  shape_.max_rows = chunk + shape_.max_sequences;
  shape_.num_kv_blocks = Number(Value(suggestions, "kv_tokens")) / kKvBlockTokens;
  EXPECT_TRUE(FitsOn(devices));
}

// Weights that are too large for any KV cache: they stay in the file.
TEST_F(SuggestionsTest, WeightsStayInTheFile) {
  std::vector<DeviceInfo> devices = Devices(2);
  std::vector<DeviceInfo> in_place = devices;
  for (DeviceInfo& device : in_place) device.layout = PackedLayout::kInPlace;
  const Plan packed = PlanOn(devices), mapped = PlanOn(in_place);
  for (size_t i = 0; i < devices.size(); ++i) {
    const model::WorkerMemory& memory = mapped.workers[i].memory;
    EXPECT_EQ(packed.workers[i].memory.weights_mapped, 0);
    EXPECT_EQ(DescribeOps(config_, mapped.workers[i].ops),
              DescribeOps(config_, packed.workers[i].ops))
        << "the work is divided alike";
    ASSERT_LT(memory.total(), packed.workers[i].memory.total());
    devices[i].memory_bytes = memory.total();
    in_place[i].memory_bytes = memory.total();
  }
  EXPECT_TRUE(FitsOn(in_place));
  const std::vector<Suggestion> suggestions = For(devices);
  EXPECT_EQ(Value(suggestions, "weights"), "in_place");
  EXPECT_EQ(For(in_place).size(), 0u);
  in_place[0].memory_bytes -= 64;
  EXPECT_FALSE(FitsOn(in_place)) << "what is not weights counts";
  EXPECT_EQ(Value(For(in_place), "weights"), "none") << "they are there already";
}

// Nor is that enough: with a smaller step it is.
TEST_F(SuggestionsTest, InPlaceTogetherWithSmallerSteps) {
  shape_.max_rows = 1024 + 64;
  shape_.max_sequences = shape_.max_logit_rows = 64;
  std::vector<DeviceInfo> devices = Devices(1);
  const StepShape whole = shape_;
  shape_.max_rows = 2;
  shape_.max_sequences = shape_.max_logit_rows = shape_.num_kv_blocks = 1;
  shape_.context_length = kKvBlockTokens;
  devices[0].memory_bytes = PlanOn(devices).workers[0].memory.total() - 64;  // the smallest step
  shape_ = whole;
  const std::vector<Suggestion> suggestions = For(devices);
  ASSERT_EQ(suggestions.size(), 1u);
  EXPECT_THAT(suggestions[0].message, HasSubstr("together: weights in_place, chunk_size "));
  devices[0].layout = PackedLayout::kInPlace;
  const int chunk = Number(Value(suggestions, "chunk_size"));
  shape_.max_sequences = shape_.max_logit_rows = Number(Value(suggestions, "max_batch_size"));
  shape_.max_rows = chunk + shape_.max_sequences;
  shape_.num_kv_blocks = Number(Value(suggestions, "kv_tokens")) / kKvBlockTokens;
  EXPECT_TRUE(FitsOn(devices));
}

TEST_F(SuggestionsTest, SaysWhenNothingHelps) {
  const std::vector<Suggestion> suggestions = For(Devices(1, 1 << 20));
  ASSERT_EQ(suggestions.size(), 1u);
  EXPECT_THAT(suggestions[0].settings, IsEmpty());
  EXPECT_THAT(suggestions[0].message, HasSubstr("nothing: no KV cache, chunk or batch is small"));
}

TEST_F(SuggestionsTest, SharedMemoryCountsForAllThatShareIt) {
  std::vector<DeviceInfo> devices = Devices(2);
  const Plan whole = PlanOn(devices);
  const int64_t both = whole.workers[0].memory.total() + whole.workers[1].memory.total();
  for (DeviceInfo& device : devices) {
    device.memory_bytes = both;
    device.memory_pool = "node 0";
  }
  EXPECT_TRUE(FitsOn(devices));
  for (DeviceInfo& device : devices) device.memory_bytes = both - 1;
  EXPECT_FALSE(FitsOn(devices));
  EXPECT_THAT(CheckMemory(config_, *file_, PlanOn(devices)),
              testing::StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("cpu:0, cpu:1 share one memory: together they need")));
}

}  // namespace
}  // namespace dovetail::coordinator
