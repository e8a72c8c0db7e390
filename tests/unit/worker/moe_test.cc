// A layer with experts on several threads: the same bits, and few barriers.
#include "worker/cpu/cpu_moe.h"

#include <filesystem>
#include <random>

#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"
#include "worker/bind_moe.h"
#include "worker/weight_loader.h"

namespace dovetail::worker {
namespace {

constexpr int kHidden = 256, kExperts = 6, kMaxRows = 40;

class MoeTest : public ::testing::TestWithParam<WeightType> {
 protected:
  void SetUp() override {
    path_ = testing::TempFile("moe_test.gguf");
    // 24 activation blocks of an expert, or three.
    testing::WriteTinyLlama(path_, {.layers = 1,
                                    .hidden = kHidden,
                                    .ffn = 768,
                                    .experts = kExperts,
                                    .experts_used = 3,
                                    .type = GetParam()});
    ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(path_));
    plan_.model_path = path_;
    plan_.model_fingerprint = file->fingerprint();
    plan_.step_shape = {.max_rows = kMaxRows, .max_sequences = 2, .max_logit_rows = 8};
    plan_.route = {{"cpu:0", {kRouter, kAllExperts}}};
  }
  void TearDown() override { std::filesystem::remove(path_); }

  // The residual stream after the layer, and the phases that it took.
  std::pair<std::vector<float>, int64_t> Run(int num_threads, const std::vector<float>& x) {
    ThreadPool pool(num_threads, {});
    const kernels::KernelTable& kernels = **kernels::SelectTable("");
    const auto store = LoadWeights(plan_, {.worker = "cpu:0", .kernels = &kernels}, &pool).value();
    const auto ws =
        Workspace::Create(store->config, store->ops, plan_.step_shape, kernels.layout, num_threads)
            .value();
    CpuOps ops(&kernels, &pool, ws.get());
    const auto moe = BindMoe(&ops, *store, plan_.route[0].ops, {kAllExperts});
    StepContext step{.ops = ops, .ws = *ws};
    step.x = ws->x;
    step.rows = step.x_rows = static_cast<int32_t>(x.size() / kHidden);
    std::pair<std::vector<float>, int64_t> result;
    // Twice, so that what the first step left behind is seen.
    for (int i = 0; i < 2; ++i) {
      std::copy(x.begin(), x.end(), ws->x);
      const int64_t before = pool.num_phases();
      moe->Forward(step);
      result = {{ws->x, ws->x + x.size()}, pool.num_phases() - before};
    }
    EXPECT_TRUE(step.finite);
    return result;
  }

  static constexpr Op kRouter = {OpKind::kRouter, 0};
  static constexpr Op kAllExperts = {OpKind::kExperts, 0, 0, kExperts};
  std::string path_;
  transport::WorkerPlan plan_;
};

std::vector<float> RandomRows(int rows) {
  std::mt19937_64 rng(testing::TestSeed());
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows) * kHidden);
  for (float& f : x) f = normal(rng);
  return x;
}

TEST_P(MoeTest, AnyNumberOfThreadsGivesTheSameBits) {
  for (int rows : {1, 2, 7, kMaxRows}) {
    const std::vector<float> x = RandomRows(rows);
    const std::vector<float> expected = Run(1, x).first;
    EXPECT_NE(expected, x);
    for (int num_threads : {2, 3, 5, 16}) EXPECT_EQ(Run(num_threads, x).first, expected);
  }
}

// The router, gate and up with the activation function, down.
TEST_P(MoeTest, OneRowTakesThreePhases) {
  for (int num_threads : {2, 3, 16}) EXPECT_EQ(Run(num_threads, RandomRows(1)).second, 3);
}

INSTANTIATE_TEST_SUITE_P(Types, MoeTest,
                         ::testing::Values(WeightType::kF32, WeightType::kQ8_0, WeightType::kQ4_K),
                         [](const auto& info) { return std::string(InfoOf(info.param).name); });

}  // namespace
}  // namespace dovetail::worker
