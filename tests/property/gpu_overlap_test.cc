// A layer's experts on a GPU worker, the shared one among them, are computed while a CPU worker
// computes the others: by the order of what both do, and with the bytes of one CPU worker.
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "kernels/kernel_table.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "worker/device/simt_device.h"

namespace dovetail {
namespace {

using testing::DataPath;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::SameBytes;
using worker::SimtDevice;

// What the CPU worker, which has nothing but routed experts, has computed so far.
class CpuWork {
 public:
  struct Counts {
    int64_t products = 0;
    int64_t sums = 0;
  };
  void Product() {
    std::lock_guard<std::mutex> lock(mutex_);
    ++counts_.products;
    changed_.notify_all();
  }
  void Sum() {
    std::lock_guard<std::mutex> lock(mutex_);
    ++counts_.sums;
  }
  Counts counts() {
    std::lock_guard<std::mutex> lock(mutex_);
    return counts_;
  }
  // Whether there is one more than at `before`, sooner or later.
  bool AwaitProductAfter(const Counts& before) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60),
                             [&] { return counts_.products > before.products; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Counts counts_;
};

CpuWork& TheCpuWork() {
  static CpuWork work;
  return work;
}

const kernels::KernelTable& BestTable() {
  static const kernels::KernelTable* const table = kernels::SelectTable("").value();
  return *table;
}

// The best kernels, which count.
const kernels::KernelTable* CountingTable() {
  static const kernels::KernelTable counting = [] {
    kernels::KernelTable table = BestTable();
    table.matmul = [](const kernels::MatmulArgs& args, int64_t begin, int64_t end) {
      BestTable().matmul(args, begin, end);
      TheCpuWork().Product();
    };
    table.combine = [](const kernels::CombineArgs& args, int64_t begin, int64_t end) {
      TheCpuWork().Sum();
      BestTable().combine(args, begin, end);
    };
    return table;
  }();
  return &counting;
}

// A GPU whose experts are not done before the CPU worker has multiplied with those of the same
// layer.
class SlowGpu : public SimtDevice {
 public:
  SlowGpu() : SimtDevice(testing::TestSeed()) {}

  absl::Status AwaitEarlierSignal(int later) override {
    const absl::Status status = SimtDevice::AwaitEarlierSignal(later);
    if (later > 0) {
      at_signal_ = TheCpuWork().counts();
      is_ahead_ = true;
    } else if (is_ahead_) {
      is_ahead_ = false;
      if (!TheCpuWork().AwaitProductAfter(at_signal_)) {
        return absl::DeadlineExceededError("the CPU worker waits for the GPU's experts");
      }
      num_sums_ += TheCpuWork().counts().sums - at_signal_.sums;
      ++num_overlaps_;
    }
    return status;
  }
  int64_t num_overlaps() const { return num_overlaps_; }
  // Made by the CPU worker meanwhile.
  int64_t num_sums() const { return num_sums_; }

 private:
  CpuWork::Counts at_signal_;
  bool is_ahead_ = false;
  int64_t num_overlaps_ = 0, num_sums_ = 0;
};

// Which routed experts are on cpu:1: all, two thirds of each layer's, those of the last layer.
enum class Apart { kAll, kTwoThirds, kLastLayer };

// All others are on simt:0, with everything else.
Route RouteOf(const model::ModelConfig& config, Apart apart) {
  Route route;
  const auto append = [&](const char* worker, const Op& op) {
    if (route.empty() || route.back().worker != worker) route.push_back({worker, {}});
    route.back().ops.push_back(op);
  };
  for (Op op : model::OpsOf(config)) {
    const bool stays = op.kind != OpKind::kExperts ||
                       (apart == Apart::kLastLayer && op.layer + 1 < config.num_hidden_layers);
    if (!stays && apart == Apart::kTwoThirds) {
      const int32_t third = op.expert_end / 3;
      append("simt:0", {op.kind, op.layer, 0, third});
      op.expert_begin = third;
    }
    append(stays ? "simt:0" : "cpu:1", op);
  }
  return route;
}

// Where the step goes on inside a layer.
int64_t NumExpertHops(const Route& route) {
  int64_t hops = 0;
  for (const Segment& segment : route) hops += segment.worker == "cpu:1" ? 1 : 0;
  return hops;
}

struct Hybrid {
  const char* name;
  const char* model;
  bool shared;
  Apart apart;

  bool overlaps() const { return shared || apart == Apart::kTwoThirds; }
};

class GpuOverlap : public ::testing::TestWithParam<Hybrid> {
 protected:
  void SetUp() override {
    options_.gguf = DataPath(absl::StrCat("golden/", GetParam().model));
    if (options_.gguf.empty()) GTEST_SKIP() << "no golden models here";
    options_.shape = {.max_rows = 100,
                      .max_sequences = 2,
                      .max_logit_rows = 100,
                      .context_length = 128,
                      .num_kv_blocks = 8,
                      .kv_type = KvType::kF16};
  }

  void UseHybrid(std::function<std::unique_ptr<SimtDevice>()> make_gpu) {
    options_.make_route = [](const model::ModelConfig& config) {
      return RouteOf(config, GetParam().apart);
    };
    options_.make_device = [make_gpu](int worker) -> std::unique_ptr<worker::Device> {
      return worker == 0 ? make_gpu() : nullptr;
    };
    options_.kernels = CountingTable();
  }

  // A prompt of many rows, and one of few, and tokens one by one, until graphs have them.
  static absl::StatusOr<Logits> Run(LocalPipeline& pipeline) {
    std::vector<int32_t> tokens(96);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 37 + 5) % 120;
    Logits rows;
    int position = 0;
    for (int count : {80, 10, 1, 1, 1, 1}) {
      transport::StepFrame frame = pipeline.NewFrame();
      LocalPipeline::AddRows(tokens, position, count, 0, 1, transport::SequenceStep::kReturnLogits,
                             {}, &frame);
      auto output = pipeline.RunStep(frame);
      if (!output.ok()) return output.status();
      rows.emplace_back(output->logits.begin(), output->logits.end());
      position += count;
    }
    return rows;
  }

  LocalPipelineOptions options_;
};

TEST_P(GpuOverlap, ExpertsOfBothWorkersAreComputedAtOnce) {
  ASSERT_OK_AND_ASSIGN(auto alone, LocalPipeline::Start(options_));
  ASSERT_OK_AND_ASSIGN(const Logits expected, Run(*alone));
  SlowGpu* gpu = nullptr;
  UseHybrid([&gpu] {
    auto made = std::make_unique<SlowGpu>();
    gpu = made.get();
    return made;
  });
  ASSERT_OK_AND_ASSIGN(auto hybrid, LocalPipeline::Start(options_));
  ASSERT_OK_AND_ASSIGN(const Logits logits, Run(*hybrid));
  EXPECT_TRUE(SameBytes(expected, logits));
  const int64_t hops = NumExpertHops(hybrid->route()) * static_cast<int64_t>(logits.size());
  EXPECT_EQ(gpu->num_overlaps(), GetParam().overlaps() ? hops : 0);
  // Without a shared expert there may be rows that chose none of the GPU's.
  if (GetParam().shared) {
    EXPECT_EQ(gpu->num_sums(), 0) << "of rows that are not there";
  }
}

// A GPU that fails when its experts are waited for.
class FailingGpu : public SimtDevice {
 public:
  FailingGpu() : SimtDevice(testing::TestSeed()) {}
  absl::Status AwaitEarlierSignal(int later) override {
    if (later == 0 && is_ahead_) return absl::InternalError("an illegal address");
    is_ahead_ = later > 0;
    return SimtDevice::AwaitEarlierSignal(later);
  }

 private:
  bool is_ahead_ = false;
};

// The CPU worker, which has the frame without its end, is woken by the end of the epoch.
TEST_P(GpuOverlap, AFailureBehindTheFrameEndsTheEpoch) {
  if (!GetParam().overlaps()) GTEST_SKIP() << "nothing is behind it";
  UseHybrid([] { return std::make_unique<FailingGpu>(); });
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options_));
  EXPECT_THAT(Run(*pipeline), testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
  ASSERT_EQ(pipeline->failures().size(), 1u);
  EXPECT_THAT(pipeline->failures()[0].message(), ::testing::HasSubstr("an illegal address"));
}

// A shared expert, one with a gate of its own, none; experts that are divided; a layer that the GPU
// worker has whole, before the one that it leaves.
INSTANTIATE_TEST_SUITE_P(
    Models, GpuOverlap,
    ::testing::Values(Hybrid{"Shared", "deepseek3/model-q4_k_m.gguf", true, Apart::kAll},
                      Hybrid{"SharedOfFloats", "glm4moe/model-bf16.gguf", true, Apart::kAll},
                      Hybrid{"SharedWithAGate", "qwen2moe/model-bf16.gguf", true, Apart::kAll},
                      Hybrid{"Divided", "qwen3moe/model-q4_k_m.gguf", false, Apart::kTwoThirds},
                      Hybrid{"Both", "deepseek3/model-q4_k_m.gguf", true, Apart::kTwoThirds},
                      Hybrid{"Last", "deepseek3/model-q4_k_m.gguf", true, Apart::kLastLayer},
                      Hybrid{"Routed", "qwen3moe/model-q4_k_m.gguf", false, Apart::kAll}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dovetail
