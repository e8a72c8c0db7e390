#include "worker/workspace.h"

#include <filesystem>
#include <vector>

#include "gmock/gmock.h"
#include "kernels/kernel_table.h"
#include "model/memory_plan.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::worker {
namespace {

constexpr StepShape kShape = {.max_rows = 24,
                              .max_sequences = 4,
                              .max_logit_rows = 8,
                              .context_length = 64,
                              .num_kv_blocks = 8};
constexpr PackedLayout kLayout = PackedLayout::kP16;

model::ModelConfig TinyConfig(int experts = 0) {
  const std::string path = testing::TempFile("workspace_test.gguf");
  testing::WriteTinyLlama(path, {.experts = experts});
  auto file = model::GgufFile::Open(path);
  EXPECT_OK(file);
  auto config = model::LoadModelConfig(**file);
  EXPECT_OK(config);
  std::filesystem::remove(path);
  return *config;
}

TEST(Workspace, IsAsLargeAsThePlanSays) {
  const model::ModelConfig config = TinyConfig();
  const std::vector<Op> ops = model::OpsOf(config);
  ASSERT_OK_AND_ASSIGN(const auto ws, Workspace::Create(config, ops, kShape, kLayout, 3));
  int64_t planned = 0;
  for (const auto& buffer : model::WorkspaceBuffers(config, ops, kShape, kLayout, 3)) {
    planned += buffer.bytes;
  }
  EXPECT_EQ(ws->bytes(), planned);
  EXPECT_EQ(ws->x_floats, 24 * config.hidden_size);
  // The ends of the first and the last buffer can be written.
  ws->x[ws->x_floats - 1] = 1;
  ws->probs[3 * config.vocab_size - 1] = 1;
}

TEST(Workspace, HasBuffersForExperts) {
  const model::ModelConfig config = TinyConfig(/*experts=*/4);
  ASSERT_OK_AND_ASSIGN(
      const auto ws, Workspace::Create(config, {{OpKind::kRouter, 1}, {OpKind::kExperts, 1, 0, 4}},
                                       kShape, kLayout, 2));
  const ExpertBuffers& e = ws->experts;
  for (const void* buffer :
       {static_cast<void*>(e.router), static_cast<void*>(e.slot_experts),
        static_cast<void*>(e.slot_weights), static_cast<void*>(e.slot_sources),
        static_cast<void*>(e.pair_rows), static_cast<void*>(e.begin), static_cast<void*>(e.order),
        static_cast<void*>(ws->block_counts), static_cast<void*>(e.gate), static_cast<void*>(e.up),
        static_cast<void*>(e.y), static_cast<void*>(e.in_act.block32.q),
        static_cast<void*>(e.in_act.block256.bsum), static_cast<void*>(e.act.block32.d),
        static_cast<void*>(e.act.block256.q)}) {
    EXPECT_NE(buffer, nullptr);
  }
  EXPECT_EQ(ws->gate, nullptr);
  EXPECT_EQ(e.shared_gate, nullptr);
  EXPECT_EQ(e.y_floats, 24 * 2 * config.hidden_size);
  ASSERT_OK_AND_ASSIGN(const auto dense,
                       Workspace::Create(TinyConfig(), {{OpKind::kMlp, 1}}, kShape, kLayout, 2));
  EXPECT_EQ(dense->experts.y, nullptr);
}

TEST(Workspace, HasPanelsOfEachThreadForWhatIsReadInPlace) {
  const model::ModelConfig config = TinyConfig();
  const std::vector<Op> ops = {{OpKind::kMlp, 0}};
  ASSERT_OK_AND_ASSIGN(const auto ws,
                       Workspace::Create(config, ops, kShape, PackedLayout::kInPlace, 3));
  ASSERT_NE(ws->panels, nullptr);
  EXPECT_EQ(ws->panels_bytes, InPlaceScratchBytes(config.intermediate_size));
  EXPECT_EQ(ws->panels_bytes % 64, 0);
  ws->panels[3 * ws->panels_bytes - 1] = 1;
  ASSERT_OK_AND_ASSIGN(const auto packed, Workspace::Create(config, ops, kShape, kLayout, 3));
  EXPECT_EQ(packed->panels, nullptr);
}

TEST(Workspace, HasOnlyWhatTheOpsNeed) {
  const model::ModelConfig config = TinyConfig();
  ASSERT_OK_AND_ASSIGN(const auto ws,
                       Workspace::Create(config, {{OpKind::kMlp, 0}}, kShape, kLayout, 1));
  EXPECT_NE(ws->x, nullptr);
  EXPECT_NE(ws->gate, nullptr);
  EXPECT_NE(ws->normed_act.block32.q, nullptr);
  EXPECT_EQ(ws->q, nullptr);
  EXPECT_EQ(ws->attn_scratch, nullptr);
  EXPECT_EQ(ws->logits, nullptr);
}

// The planner's formula and the kernels' must be the same; the worker aborts where they are not.
TEST(Workspace, AttentionScratchIsPlannedAsTheKernelsWantIt) {
  const auto expect_same = [](const KvShape& shape) {
    EXPECT_EQ(model::AttentionScratchFloats(shape), kernels::AttentionScratchFloats(shape))
        << shape.key_dim;
    EXPECT_EQ(model::AttentionPartFloats(shape), kernels::AttentionPartFloats(shape))
        << shape.value_dim;
  };
  for (int head_dim : {16, 48, 64, 80, 96, 128, 192, 256}) {
    expect_same({KvLayout::kHeads, 2, head_dim, head_dim});
  }
  expect_same({KvLayout::kLatent, 1, 576, 512});
  expect_same({KvLayout::kLatent, 1, 50, 36});
}

}  // namespace
}  // namespace dovetail::worker
