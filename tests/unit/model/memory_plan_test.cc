#include "model/memory_plan.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::StatusIs;
using ::dovetail::testing::TinyLlamaOptions;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

struct Loaded {
  std::unique_ptr<GgufFile> file;
  ModelConfig config;
};

Loaded LoadTiny(const TinyLlamaOptions& options) {
  const std::string path = ::testing::TempDir() + "/memory_plan_test.gguf";
  testing::WriteTinyLlama(path, options);
  Loaded loaded{GgufFile::Open(path).value(), {}};
  loaded.config = LoadModelConfig(*loaded.file).value();
  return loaded;
}

const StepShape kShape = {.max_rows = 24,
                          .max_sequences = 4,
                          .max_logit_rows = 8,
                          .context_length = 100,
                          .num_kv_blocks = 10,
                          .kv_type = KvType::kF16};

std::map<std::string, int64_t> Buffers(const ModelConfig& config, const std::vector<Op>& ops,
                                       const StepShape& shape = kShape, int threads = 2,
                                       PackedLayout layout = PackedLayout::kP16) {
  std::map<std::string, int64_t> sizes;
  for (const WorkspaceBuffer& b : WorkspaceBuffers(config, ops, shape, layout, threads)) {
    EXPECT_EQ(b.bytes % 64, 0) << b.name;
    EXPECT_TRUE(sizes.emplace(b.name, b.bytes).second) << b.name;
  }
  return sizes;
}

TEST(MemoryPlan, SlotsFollowOpsWithoutGapsOrOverlap) {
  const Loaded m = LoadTiny({.type = WeightType::kQ8_0});
  const std::vector<Op> ops = OpsOf(m.config);
  for (PackedLayout layout : {PackedLayout::kRaw, PackedLayout::kP16}) {
    ASSERT_OK_AND_ASSIGN(const auto slots, LayOutWeights(m.config, *m.file, ops, layout));
    size_t n = 0;
    int64_t offset = 0;
    for (const Op& op : ops) {
      for (const WeightSpec& spec : WeightsOf(m.config, op)) {
        const WeightSlot& slot = slots.at(n++);
        EXPECT_EQ(slot.op, op);
        EXPECT_EQ(slot.spec.tensor, spec.tensor);
        EXPECT_EQ(slot.offset, offset);
        EXPECT_EQ(slot.offset % 64, 0);
        EXPECT_EQ(slot.stored_bytes, m.file->FindTensor(spec.tensor)->bytes);
        if (spec.is_vector) {
          EXPECT_EQ(slot.bytes, 64 * 4);
          EXPECT_EQ(slot.type, WeightType::kF32);
        } else {
          const PackedLayout own = op.kind == OpKind::kEmbedding ? PackedLayout::kRaw : layout;
          EXPECT_EQ(slot.bytes, PackedBytes(own, WeightType::kQ8_0, spec.rows, spec.cols));
          EXPECT_EQ(slot.type, WeightType::kQ8_0);
        }
        offset += slot.bytes;
      }
    }
    EXPECT_EQ(n, slots.size());
  }
}

constexpr PackedLayout kLayoutsInMemory[] = {PackedLayout::kRaw, PackedLayout::kP16,
                                             PackedLayout::kP16Device};

TEST(MemoryPlan, TiedEmbeddingsAreInTheHead) {
  const Loaded m = LoadTiny({.type = WeightType::kQ8_0, .tied = true});
  const int64_t stored = m.file->FindTensor("token_embd.weight")->bytes;
  const std::vector<Op> ops = {{OpKind::kEmbedding}, {OpKind::kNorm}, {OpKind::kLmHead}};
  for (PackedLayout layout : kLayoutsInMemory) {
    ASSERT_OK_AND_ASSIGN(const auto slots, LayOutWeights(m.config, *m.file, ops, layout));
    ASSERT_EQ(slots.size(), 3u);
    EXPECT_EQ(slots[0].spec.tensor, "token_embd.weight");
    EXPECT_EQ(slots[2].spec.tensor, "token_embd.weight");
    EXPECT_TRUE(slots[0].in_head);
    EXPECT_FALSE(slots[0].in_place);
    EXPECT_FALSE(slots[2].in_head);
    EXPECT_EQ(slots[0].bytes, 0);
    EXPECT_EQ(slots[1].offset, 0) << "the norm comes first";
    EXPECT_EQ(slots[0].offset, slots[2].offset);
    EXPECT_EQ(slots[2].bytes, PackedBytes(layout, WeightType::kQ8_0, 320, 64));
    ASSERT_OK_AND_ASSIGN(const WorkerMemory memory,
                         PlanWorkerMemory(m.config, *m.file, ops, kShape, layout, 1));
    EXPECT_EQ(memory.weights_packed, slots[1].bytes + slots[2].bytes);
    EXPECT_EQ(memory.weights_stored, slots[1].stored_bytes + stored);
    EXPECT_EQ(memory.weights_mapped, 0);
  }
}

// Without a head, with one that other workers have rows of, and with a head of its own.
TEST(MemoryPlan, AnEmbeddingThatIsInNoHeadHasRowsOfItsOwn) {
  const Loaded m = LoadTiny({.type = WeightType::kQ8_0, .tied = true});
  const Loaded untied = LoadTiny({.type = WeightType::kQ8_0});
  Op some_rows{OpKind::kLmHead};
  some_rows.rows = {.members = 2, .member = 0, .shares = {1, 1}};
  const auto expect_own = [](const Loaded& model, const std::vector<Op>& ops) {
    const int64_t stored = model.file->FindTensor("token_embd.weight")->bytes;
    for (PackedLayout layout : kLayoutsInMemory) {
      ASSERT_OK_AND_ASSIGN(const auto slots, LayOutWeights(model.config, *model.file, ops, layout));
      EXPECT_FALSE(slots[0].in_head);
      EXPECT_EQ(slots[0].in_place, layout == PackedLayout::kP16Device);
      EXPECT_EQ(slots[0].bytes, slots[0].in_place ? 0 : stored);
      EXPECT_EQ(slots[0].offset, 0);
    }
  };
  expect_own(m, {{OpKind::kEmbedding}, {OpKind::kAttention, 0}});
  expect_own(m, {{OpKind::kEmbedding}, some_rows});
  expect_own(untied, {{OpKind::kEmbedding}, {OpKind::kLmHead}});
}

TEST(MemoryPlan, MissingTensorsAreNamed) {
  const Loaded small = LoadTiny({.layers = 1});
  ModelConfig config = small.config;
  config.num_hidden_layers = 2;
  EXPECT_THAT(LayOutWeights(config, *small.file, OpsOf(config), PackedLayout::kRaw),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("missing tensor blk.1.attn_norm.weight")));
}

TEST(MemoryPlan, KvBytes) {
  ModelConfig config;
  config.num_key_value_heads = 3;
  config.head_dim = 64;
  // 32 tokens, keys and values, 3 heads of 64.
  EXPECT_EQ(KvBytesPerBlockPerLayer(config, KvType::kF16), 32 * 2 * 3 * 64 * 2);
  EXPECT_EQ(KvBytesPerBlockPerLayer(config, KvType::kF32), 32 * 2 * 3 * 64 * 4);
  // Each layer with its own type.
  StepShape shape = kShape;
  shape.layer_kv_types = {KvType::kF32};
  const std::vector<Op> ops = {{OpKind::kAttention, 0}, {OpKind::kMlp, 0}, {OpKind::kAttention, 1}};
  EXPECT_EQ(KvBytes(config, ops, shape), 10 * (32 * 2 * 3 * 64 * (4 + 2)));
}

// DeepSeek-V3's attention.
ModelConfig LatentConfigOfV3() {
  ModelConfig config;
  config.architecture = "deepseek2";
  config.hidden_size = 7168;
  config.num_attention_heads = 128;
  config.num_key_value_heads = 1;
  config.head_dim = 192;
  config.rope_dim = 64;
  config.latent = {.kv_lora_rank = 512, .q_lora_rank = 1536, .nope_dim = 128, .v_head_dim = 128};
  return config;
}

TEST(MemoryPlan, LatentAttentionKeepsOneVectorOfATokenAndWorksInTiles) {
  const ModelConfig config = LatentConfigOfV3();
  EXPECT_EQ(KvBytesPerBlockPerLayer(config, KvType::kF16), 32 * 576 * 2);
  StepShape shape = kShape;
  shape.max_rows = 512;
  auto buffers = Buffers(config, {{OpKind::kAttention, 0}}, shape);
  EXPECT_EQ(buffers["q"], 512 * 128 * 192 * 4);
  EXPECT_EQ(buffers["q_lora"], 512 * 1536 * 4);
  EXPECT_EQ(buffers["k"], 512 * 576 * 4);
  EXPECT_EQ(buffers["attn"], 512 * 128 * 128 * 4);
  EXPECT_EQ(buffers["q_latent"], 64 * 128 * 576 * 4);
  EXPECT_EQ(buffers["latent"], 64 * 128 * 512 * 4);
  EXPECT_EQ(buffers["head_q8"], 64 * 128 * (512 + 64));
  EXPECT_EQ(buffers["attn_scratch"],
            2 * AttentionScratchFloats({KvLayout::kLatent, 1, 576, 512}) * 4);
  EXPECT_EQ(buffers.count("v"), 0u);
  EXPECT_EQ(Buffers(config, {{OpKind::kAttention, 0}})["q_latent"], 24 * 128 * 576 * 4);
}

TEST(MemoryPlan, PartsOfAMergedTensorAreCountedAsTheyAreKept) {
  DT_REQUIRE_DATA(merged_path, "golden/deepseek2-lite/model-bf16-kv_b.gguf");
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(merged_path));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(*file));
  ASSERT_OK_AND_ASSIGN(const auto slots,
                       LayOutWeights(config, *file, {{OpKind::kAttention, 0}}, PackedLayout::kP16));
  int64_t stored = 0;
  for (const WeightSlot& slot : slots) {
    if (slot.spec.tensor != "blk.0.attn_kv_b.weight") continue;
    EXPECT_EQ(slot.bytes, 4 * 256 * 64 * 2);  // heads, latent, key or value: bf16 as it was
    stored += slot.stored_bytes;
  }
  EXPECT_EQ(stored, file->FindTensor("blk.0.attn_kv_b.weight")->bytes);
  EXPECT_EQ(TransposedType(WeightType::kBF16), WeightType::kBF16);
  EXPECT_EQ(TransposedType(WeightType::kQ4_K), WeightType::kF32);
}

TEST(MemoryPlan, OneRowOfTheLongestContextCanBeShared) {
  const Loaded m = LoadTiny({});  // 4 heads of 16
  StepShape shape = kShape;
  shape.context_length = 1025;
  EXPECT_EQ(Buffers(m.config, OpsOf(m.config), shape)["attn_parts"], 4 * 5 * (16 + 16) * 4);
  EXPECT_EQ(Buffers(m.config, OpsOf(m.config), shape, 1).count("attn_parts"), 0u)
      << "one thread has nobody to share with";
}

TEST(MemoryPlan, WorkspaceHasWhatTheOpsNeed) {
  const Loaded m = LoadTiny({});  // hidden 64, 4 heads of 16, 2 KV heads, ffn 128, vocab 320
  const auto all = Buffers(m.config, OpsOf(m.config));
  const std::map<std::string, int64_t> expected = {
      {"x", 24 * 64 * 4},
      {"normed", 24 * 64 * 4},
      {"q", 24 * 64 * 4},
      {"k", 24 * 32 * 4},
      {"v", 24 * 32 * 4},
      {"attn", 24 * 64 * 4},
      {"cos_sin", 24 * 16 * 4},
      {"attn_scratch", 2 * AttentionScratchFloats(m.config.kv_shape()) * 4},
      {"attn_parts", 4 * 1 * AttentionPartFloats(m.config.kv_shape()) * 4},
      {"gate", 24 * 128 * 4},
      {"up", 24 * 128 * 4},
      {"block_counts", 64},  // 8 panels of 4 bytes: a line
      {"act_q8", 24 * 320},
      {"act_d", 24 * 8 * 4},
      {"act_bsum", 24 * 16 * 2},
      {"act2_q8", 24 * 320},
      {"act2_d", 24 * 8 * 4},
      {"act2_bsum", 24 * 16 * 2},
      {"act3_q8", 24 * 320},
      {"act3_d", 24 * 16 * 4},
      {"act3_bsum", 24 * 16 * 2},
      {"normed3_q8", 24 * 320},
      {"normed3_d", 24 * 16 * 4},
      {"normed3_bsum", 24 * 16 * 2},
      {"normed_q8", 24 * 320},
      {"normed_d", 24 * 8 * 4},
      {"normed_bsum", 24 * 16 * 2},
      {"normed2_q8", 24 * 320},
      {"normed2_d", 24 * 8 * 4},
      {"normed2_bsum", 24 * 16 * 2},
      {"logit_rows", 8 * 64 * 4},
      {"logits", 8 * 320 * 4},
      {"probs", 2 * 320 * 4},
      {"ids", 2 * 320 * 4},
  };
  EXPECT_EQ(all, expected);

  const auto names = [&](const std::vector<Op>& ops) {
    std::vector<std::string> keys;
    for (const auto& [name, bytes] : Buffers(m.config, ops)) keys.push_back(name);
    return keys;
  };
  EXPECT_THAT(names({{OpKind::kEmbedding}}), ElementsAre("normed", "x"));
  EXPECT_THAT(names({{OpKind::kNorm}}), ElementsAre("logit_rows", "normed", "x"));
  EXPECT_THAT(Buffers(m.config, {{OpKind::kMlp, 0}}), Not(Contains(Key("attn_scratch"))));
  EXPECT_THAT(Buffers(m.config, {{OpKind::kMlp, 0}}), Contains(Key("gate")));
  EXPECT_THAT(Buffers(m.config, {{OpKind::kAttention, 0}}), Not(Contains(Key("gate"))));
  EXPECT_THAT(Buffers(m.config, {{OpKind::kLmHead}}), Contains(Key("probs")));
}

constexpr Op kRouter = {OpKind::kRouter, 0};
Op Experts(int begin, int end) { return {OpKind::kExperts, 0, begin, end}; }

TEST(MemoryPlan, ExpertsArePackedOneByOne) {
  const Loaded m = LoadTiny({.ffn = 96, .experts = 5, .type = WeightType::kQ8_0});
  for (const auto& [begin, end] : {std::pair(0, 5), {1, 4}}) {
    ASSERT_OK_AND_ASSIGN(const auto slots, LayOutWeights(m.config, *m.file, {Experts(begin, end)},
                                                         PackedLayout::kP16));
    ASSERT_EQ(slots.size(), 4u);  // norm, gate, up, down
    for (size_t i : {1, 2, 3}) {
      const WeightSpec& spec = slots[i].spec;
      EXPECT_EQ(spec.experts, end - begin);
      EXPECT_EQ(spec.first_expert, begin);
      EXPECT_EQ(slots[i].bytes, (end - begin) * PackedBytes(PackedLayout::kP16, WeightType::kQ8_0,
                                                            spec.rows, spec.cols));
      EXPECT_EQ(slots[i].stored_bytes,
                (end - begin) * StoredBytes(WeightType::kQ8_0, spec.rows * spec.cols));
    }
  }
}

TEST(MemoryPlan, PartsOfALayerShareTheNormBeforeThem) {
  const Loaded m = LoadTiny({.ffn = 96, .experts = 5});
  const auto norms = [&](const std::vector<Op>& ops) {
    const auto slots = LayOutWeights(m.config, *m.file, ops, PackedLayout::kP16).value();
    return std::count_if(slots.begin(), slots.end(), [](const WeightSlot& slot) {
      return slot.spec.role == WeightRole::kMlpNorm;
    });
  };
  EXPECT_EQ(norms({kRouter, Experts(0, 3), Experts(3, 5)}), 1);
  EXPECT_EQ(norms({Experts(0, 1), Experts(3, 5)}), 1);
  EXPECT_EQ(norms({kRouter, {OpKind::kRouter, 1}, Experts(0, 5)}), 2);
}

TEST(MemoryPlan, ExpertsNeedRoomForAllTheirRows) {
  const Loaded m = LoadTiny({.ffn = 96, .experts = 5, .experts_used = 3});
  auto buffers = Buffers(m.config, {kRouter, Experts(0, 5)});
  EXPECT_THAT(buffers, Not(Contains(Key("gate"))));  // no dense layer, no shared expert
  EXPECT_THAT(buffers, Not(Contains(Key("act_q8"))));
  EXPECT_EQ(buffers["normed_q8"], 24 * 320);
  EXPECT_EQ(buffers["router"], (24 * 5 * 4 + 63) / 64 * 64);
  EXPECT_EQ(buffers["expert_gate"], 24 * 3 * 96 * 4);
  EXPECT_EQ(buffers["partials"], 24 * 3 * 64 * 4);
  EXPECT_EQ(buffers["expert_in_q8"], 24 * 3 * 320);
  EXPECT_EQ(buffers["expert_act2_d"], 24 * 3 * 8 * 4);
  EXPECT_THAT(Buffers(m.config, {{OpKind::kAttention, 0}}), Not(Contains(Key("partials"))));
  // A row uses an expert once; but the rows that other workers made may all come here.
  auto some = Buffers(m.config, {Experts(0, 1), Experts(3, 4), {OpKind::kExperts, 1, 0, 1}});
  EXPECT_THAT(some, Not(Contains(Key("router"))));
  EXPECT_EQ(some["expert_gate"], 24 * 2 * 96 * 4);
  EXPECT_EQ(some["partials"], 24 * 3 * 64 * 4);
  // A router alone makes slots.
  auto router = Buffers(m.config, {kRouter});
  EXPECT_EQ(router["slot_experts"], (24 * 3 * 4 + 63) / 64 * 64);
  EXPECT_THAT(router, Not(Contains(Key("partials"))));
}

TEST(MemoryPlan, SharedExpertsHaveASlotOfTheirOwn) {
  Loaded m = LoadTiny({.ffn = 96, .experts = 5, .experts_used = 3});
  m.config.experts.shared_intermediate_size = 48;
  EXPECT_EQ(
      RowShapeOf(m.config),
      (RowShape{.hidden_size = 64, .num_experts = 5, .experts_used = 3, .shared_slot = true}));
  auto shared = Buffers(m.config, {{OpKind::kSharedExperts, 0}});
  EXPECT_EQ(shared["gate"], 24 * 48 * 4);
  EXPECT_EQ(shared["slot_weights"], 24 * 4 * 4);
  EXPECT_EQ(shared["partials"], 24 * 64 * 4);
  EXPECT_EQ(Buffers(m.config, {Experts(0, 1)})["partials"], 24 * 4 * 64 * 4);
}

TEST(MemoryPlan, LongRowsDecideTheActivationBuffers) {
  const Loaded m = LoadTiny({.ffn = 320});
  EXPECT_EQ(Buffers(m.config, {{OpKind::kMlp, 0}})["act_q8"], 24 * (512 + 64));
  EXPECT_EQ(Buffers(m.config, {{OpKind::kAttention, 0}})["act_q8"], 24 * 320);
  // More logits than tokens of a step: buffers on the way to lm_head hold them all.
  StepShape shape = kShape;
  shape.max_logit_rows = 40;
  EXPECT_EQ(Buffers(m.config, {{OpKind::kLmHead}}, shape)["act_q8"], 40 * 320);
  EXPECT_EQ(Buffers(m.config, {{OpKind::kLmHead}}, shape)["x"], 40 * 64 * 4);
}

TEST(MemoryPlan, AddsUp) {
  const Loaded m = LoadTiny({.layers = 3});
  const std::vector<Op> ops = {{OpKind::kAttention, 0}, {OpKind::kMlp, 0}, {OpKind::kAttention, 2}};
  ASSERT_OK_AND_ASSIGN(const WorkerMemory memory,
                       PlanWorkerMemory(m.config, *m.file, ops, kShape, PackedLayout::kP16, 2));
  ASSERT_OK_AND_ASSIGN(const auto slots, LayOutWeights(m.config, *m.file, ops, PackedLayout::kP16));
  EXPECT_EQ(memory.weights_packed, slots.back().offset + slots.back().bytes);
  int64_t stored = 0;
  for (const WeightSlot& slot : slots) stored += slot.stored_bytes;
  EXPECT_EQ(memory.weights_stored, stored);
  EXPECT_EQ(memory.kv, 2 * 10 * KvBytesPerBlockPerLayer(m.config, KvType::kF16));
  int64_t workspace = 0;
  for (const auto& [name, bytes] : Buffers(m.config, ops)) workspace += bytes;
  EXPECT_EQ(memory.workspace, workspace);
  EXPECT_EQ(memory.communication, kRingBytes);
  EXPECT_EQ(memory.total(), memory.weights_packed + memory.kv + memory.workspace +
                                memory.communication + memory.runtime);
}

// Of a layer with experts, latent attention or neither: matrices stay in the file, what is derived
// from it does not.
TEST(MemoryPlan, WhatIsReadInPlaceTakesNoMemory) {
  const Loaded m = LoadTiny({.experts = 4, .type = WeightType::kQ8_0});
  const std::vector<Op> ops = OpsOf(m.config);
  ASSERT_OK_AND_ASSIGN(const auto slots,
                       LayOutWeights(m.config, *m.file, ops, PackedLayout::kInPlace));
  int64_t packed = 0, in_place = 0;
  for (const WeightSlot& slot : slots) {
    EXPECT_EQ(slot.in_place, !slot.spec.is_vector) << slot.spec.tensor;
    EXPECT_EQ(slot.bytes == 0, slot.in_place) << slot.spec.tensor;
    (slot.in_place ? in_place : packed) += slot.in_place ? slot.stored_bytes : slot.bytes;
  }
  ASSERT_OK_AND_ASSIGN(const WorkerMemory memory,
                       PlanWorkerMemory(m.config, *m.file, ops, kShape, PackedLayout::kInPlace, 2));
  EXPECT_EQ(memory.weights_packed, packed);
  EXPECT_EQ(memory.weights_mapped, in_place);
  ASSERT_OK_AND_ASSIGN(const WorkerMemory whole,
                       PlanWorkerMemory(m.config, *m.file, ops, kShape, PackedLayout::kP16, 2));
  EXPECT_EQ(whole.weights_mapped, 0);
  const auto buffers = Buffers(m.config, ops, kShape, 2, PackedLayout::kInPlace);
  EXPECT_EQ(memory.workspace - whole.workspace, buffers.at("panels"));
  EXPECT_EQ(buffers.at("panels"), 2 * InPlaceScratchBytes(m.config.intermediate_size));
  EXPECT_EQ(memory.total() - memory.workspace,
            whole.total() - whole.workspace - whole.weights_packed + memory.weights_packed);
  // Where experts, and parts of them, lie.
  ASSERT_OK_AND_ASSIGN(const auto some,
                       LayOutWeights(m.config, *m.file, {Experts(1, 3)}, PackedLayout::kInPlace));
  for (const WeightSlot& slot : some) {
    if (!slot.in_place) continue;
    const int64_t expert = m.file->FindTensor(slot.spec.tensor)->bytes / 4;
    EXPECT_EQ(slot.source_offset, expert);
    EXPECT_EQ(slot.stride(), expert);
  }
}

TEST(MemoryPlan, TiedEmbeddingsAreMappedOnce) {
  const Loaded m = LoadTiny({.tied = true});
  const std::vector<Op> ops = {{OpKind::kEmbedding}, {OpKind::kNorm}, {OpKind::kLmHead}};
  ASSERT_OK_AND_ASSIGN(const WorkerMemory memory,
                       PlanWorkerMemory(m.config, *m.file, ops, kShape, PackedLayout::kInPlace, 1));
  EXPECT_EQ(memory.weights_mapped, m.file->FindTensor("token_embd.weight")->bytes);
}

TEST(MemoryPlan, WhatIsAllocatedBeforeAWorkerIsReadyBelongsToLoading) {
  WorkerMemory memory = {.weights_packed = kMeasureBytes,
                         .kv = 300,
                         .workspace = 20,
                         .communication = 1000,
                         .runtime = 7};
  EXPECT_EQ(memory.peak_load(), kMeasureBytes + 327);
  memory.weights_packed = 5;
  EXPECT_EQ(memory.peak_load(), kMeasureBytes + 7) << "the bandwidth was measured before";
}

}  // namespace
}  // namespace dovetail::model
