#include "worker/bind_moe.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"
#include "worker/cpu/cpu_ops.h"
#include "worker/weight_loader.h"

namespace dovetail::worker {
namespace {

constexpr Op kRouter = {OpKind::kRouter, 0};
Op Experts(int begin, int end) { return {OpKind::kExperts, 0, begin, end}; }

class BindMoeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string dir = ::testing::TempDir() + "bind_moe-XXXXXX";
    ASSERT_NE(mkdtemp(dir.data()), nullptr);
    dir_ = dir;
    plan_.model_path = dir_ + "/model.gguf";
    testing::WriteTinyLlama(plan_.model_path, {.experts = 6});
    ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(plan_.model_path));
    plan_.model_fingerprint = file->fingerprint();
    plan_.step_shape = {.max_rows = 8, .max_sequences = 2, .max_logit_rows = 8};
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<Moe> Bind(const std::vector<Op>& parts, const std::vector<Op>& experts) {
    plan_.route = {{"cpu:0", parts}};
    const LoadOptions options = {.worker = "cpu:0",
                                 .weights_path = dir_ + "/weights",
                                 .kv_path = dir_ + "/kv",
                                 .kernels = *kernels::SelectTable("")};
    store_.reset();
    store_ = LoadWeights(plan_, options, &pool_).value();
    workspace_ = Workspace::Create(store_->config, store_->ops, plan_.step_shape, store_->layout,
                                   pool_.num_threads())
                     .value();
    ops_ = std::make_unique<CpuOps>(options.kernels, &pool_, workspace_.get());
    return BindMoe(ops_.get(), *store_, parts, experts);
  }

  std::string dir_;
  transport::WorkerPlan plan_;
  ThreadPool pool_{1, {}};
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<Workspace> workspace_;
  std::unique_ptr<CpuOps> ops_;
};

// What must have come with a frame, and whether the sum is made here, follow from where in the
// order of the route the own ranges are.
TEST_F(BindMoeTest, KnowsWhatWasComputedBefore) {
  const std::vector<Op> order = {Experts(4, 6), Experts(0, 1), Experts(2, 4), Experts(1, 2)};
  const std::vector<int32_t> slots = {0, 1, 4, 5, 3, 2};  // of three rows
  const auto first = Bind({kRouter, order[0]}, order);
  EXPECT_FALSE(first->ends_layer());
  EXPECT_EQ(first->NumCarriedRows(slots.data(), 3), 0);
  const auto middle = Bind({order[1], order[2]}, order);
  EXPECT_FALSE(middle->ends_layer());
  EXPECT_EQ(middle->NumCarriedRows(slots.data(), 3), 2);
  const auto last = Bind({order[3]}, order);
  EXPECT_TRUE(last->ends_layer());
  EXPECT_EQ(last->NumCarriedRows(slots.data(), 3), 5);
  EXPECT_FALSE(Bind({kRouter}, order)->ends_layer());
  EXPECT_TRUE(Bind({kRouter, Experts(0, 6)}, {Experts(0, 6)})->ends_layer());
}

}  // namespace
}  // namespace dovetail::worker
