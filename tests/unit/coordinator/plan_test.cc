#include "coordinator/placement/plan.h"

#include "coordinator/placement/device_spec.h"
#include "coordinator/placement/plan_table.h"
#include "coordinator/placement/speed.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::dovetail::testing::StatusIs;
using ::dovetail::testing::TinyLlamaOptions;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class PlanTest : public PlanFixture {};

TEST_F(PlanTest, WithoutRulesOneWorkerHasEverything) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make(Devices(1)));
  EXPECT_THAT(Places(plan), ElementsAre("cpu:0: embedding, layers 0-7, norm, lm_head"));
  ASSERT_EQ(plan.workers.size(), 1u);
  EXPECT_EQ(plan.workers[0].ops, model::OpsOf(config_));
  EXPECT_EQ(plan.modules[0].rule, std::nullopt);
  EXPECT_EQ(plan.modules[0].module, "model.embed_tokens");
  int64_t stored = 0;
  for (const PlacedModule& module : plan.modules) stored += module.stored_bytes;
  int64_t in_file = 0;
  for (const model::GgufTensor& tensor : file_->tensors()) in_file += tensor.bytes;
  EXPECT_EQ(stored, in_file) << "every tensor belongs to exactly one module";
}

TEST_F(PlanTest, WithoutRulesLayersAreSplitEvenlyByBytes) {
  TinyLlamaOptions options;
  options.vocab = 288;  // embedding and lm_head about the size of a layer
  Open(options, 9);
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make(Devices(3)));
  EXPECT_THAT(Places(plan), ElementsAre("cpu:0: embedding, layers 0-2", "cpu:1: layers 3-5",
                                        "cpu:2: layers 6-8, norm, lm_head"));
}

TEST_F(PlanTest, MoreWorkersThanLayersLeavesSomeOut) {
  Open({}, 2);
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make(Devices(6)));
  EXPECT_LE(plan.workers.size(), 4u);
  EXPECT_EQ(plan.route.front().worker, "cpu:0");
  EXPECT_EQ(plan.route.back().worker, "cpu:5");
  size_t num_ops = 0;
  for (const PlacedWorker& worker : plan.workers) num_ops += worker.ops.size();
  EXPECT_EQ(num_ops, model::OpsOf(config_).size());
}

TEST_F(PlanTest, RulesDecideAndTheFirstMatchWins) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make(R"(
- {match: {layers: 3, role: mlp}, place: cpu:1}
- {match: {layers: 0-3}, place: cpu:0}
- {match: {role: embedding}, place: cpu:0}
- {match: {}, place: cpu:1}
)",
                                             Devices(3)));
  EXPECT_THAT(Places(plan), ElementsAre("cpu:0: embedding, layers 0-2, layer 3 attention",
                                        "cpu:1: layer 3 mlp, layers 4-7, norm, lm_head"));
  EXPECT_EQ(plan.workers.size(), 2u) << "cpu:2 owns nothing";
  EXPECT_EQ(plan.modules[7].module, "model.layers.3.self_attn");
  EXPECT_EQ(plan.modules[7].rule, (RuleRef{"r.yaml", 3, 3, 1}));
  EXPECT_EQ(plan.modules[8].module, "model.layers.3.mlp");
  EXPECT_EQ(plan.modules[8].rule, (RuleRef{"r.yaml", 2, 3, 0}));
}

TEST_F(PlanTest, ARouteMayComeBackToAWorker) {
  Open({}, 2);
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make(R"(
- {match: {role: mlp}, place: cpu:1}
- {match: {}, place: cpu:0}
)",
                                             Devices(2)));
  EXPECT_THAT(Places(plan), ElementsAre("cpu:0: embedding, layer 0 attention", "cpu:1: layer 0 mlp",
                                        "cpu:0: layer 1 attention", "cpu:1: layer 1 mlp",
                                        "cpu:0: norm, lm_head"));
  ASSERT_EQ(plan.workers.size(), 2u);
  EXPECT_EQ(plan.workers[0].ops.size(), 5u);
  EXPECT_EQ(plan.workers[1].memory.kv, 0) << "no attention, no KV cache";
  EXPECT_GT(plan.workers[0].memory.kv, 0);
  EXPECT_EQ(plan.workers[0].memory.communication - plan.workers[1].memory.communication,
            model::kRingBytes)
      << "from the coordinator and from cpu:1";
  EXPECT_GE(plan.workers[1].memory.communication, model::kRingBytes);
}

// Each worker is planned for with its own rows, and the part of the KV cache of its heads.
TEST_F(PlanTest, SharedRowsAreCountedWhereTheyAre) {
  ASSERT_OK_AND_ASSIGN(const Plan whole, Make(Devices(1)));
  ASSERT_OK_AND_ASSIGN(const Plan plan,
                       Make("- {match: {}, split: {cpu:0: 1, cpu:1: 1}, by: rows}\n", Devices(2)));
  EXPECT_THAT(Places(plan), ElementsAre("cpu:0: embedding", "cpu:0: layers 0-7, norm, lm_head"));
  EXPECT_EQ(plan.route[1].members, (std::vector<Member>{{"cpu:0", 1}, {"cpu:1", 1}}));
  ASSERT_EQ(plan.workers.size(), 2u);
  EXPECT_EQ(plan.workers[1].ops.size(), plan.workers[0].ops.size() - 1) << "no embedding";
  EXPECT_EQ(plan.workers[1].ops[0].rows.member, 1);
  const model::WorkerMemory &first = plan.workers[0].memory, &second = plan.workers[1].memory;
  const model::WorkerMemory& all = whole.workers[0].memory;
  EXPECT_EQ(first.kv, all.kv / 2);
  EXPECT_EQ(second.kv, all.kv / 2);
  EXPECT_LT(second.weights_packed, first.weights_packed);
  const int64_t together = first.weights_packed + second.weights_packed;
  EXPECT_GT(together, all.weights_packed) << "norms are with both";
  EXPECT_LT(together, all.weights_packed + all.weights_packed / 20);
  EXPECT_LT(second.workspace, first.workspace) << "the first samples";
  EXPECT_EQ(first.communication, second.communication) << "steps, and the other's rows";
  EXPECT_EQ(first.communication, all.communication + model::kRingBytes);
}

// Each worker that has the embedding or the head has the tied matrix, one that has both has it
// once.
TEST_F(PlanTest, TiedEmbeddingsCountOnce) {
  Open({.type = WeightType::kQ8_0, .tied = true});
  const int64_t matrix = file_->FindTensor("token_embd.weight")->bytes;
  ASSERT_OK_AND_ASSIGN(const Plan whole, Make(Devices(1)));
  const model::WorkerMemory& all = whole.workers[0].memory;
  ASSERT_EQ(whole.modules.front().op.kind, OpKind::kEmbedding);
  EXPECT_EQ(whole.modules.front().packed_bytes, 0);
  EXPECT_EQ(whole.modules.front().stored_bytes, matrix);
  EXPECT_EQ(whole.modules.back().packed_bytes, matrix);
  ASSERT_OK_AND_ASSIGN(const model::WorkerMemory loaded,
                       model::PlanWorkerMemory(config_, *file_, whole.workers[0].ops, shape_,
                                               PackedLayout::kP16, 1));
  EXPECT_EQ(all.weights_packed, loaded.weights_packed);
  EXPECT_EQ(all.weights_stored, loaded.weights_stored);
  ASSERT_OK_AND_ASSIGN(const Plan apart, Make("- {match: {role: lm_head}, place: cpu:1}\n"
                                              "- {match: {}, place: cpu:0}\n",
                                              Devices(2)));
  EXPECT_EQ(apart.workers[0].memory.weights_packed, all.weights_packed);
  EXPECT_EQ(apart.workers[1].memory.weights_packed, matrix);
  EXPECT_EQ(apart.modules.front().packed_bytes, matrix);
  EXPECT_GT(BytesRead(config_, whole.modules.front(), 1), 0) << "a row is read wherever it is";
}

TEST_F(PlanTest, ListsAllMistakesOfRulesAtOnce) {
  const absl::StatusOr<Plan> plan = Make(R"(
- {match: {layers: 0-3}, place: cpu:0}
- {match: {layers: 4-8, role: attention}, place: cpu:1}
- {match: {layers: 40}, place: cpu:1}
- {match: {layers: 4, role: mlp}, place: gpu:0}
- {match: {layers: 5, experts: 0-3}, place: cpu:0}
- {match: {layers: 5, role: embedding}, place: cpu:0}
)",
                                         Devices(2));
  EXPECT_THAT(
      plan, StatusIs(absl::StatusCode::kInvalidArgument,
                     "r.yaml: no rule places model.embed_tokens, model.layers.5-7.mlp, model.norm, "
                     "lm_head; a last rule `match: {}` takes what is left\n"
                     "r.yaml:3:20: the rule names layer 8, but the model has 8 layers (0-7)\n"
                     "r.yaml:4:20: the rule names layer 40, but the model has 8 layers (0-7)\n"
                     "r.yaml:5:42: unknown worker `gpu:0`; known: cpu:0, cpu:1\n"
                     "r.yaml:6:32: the rule places experts, but the model is dense"));
}

TEST_F(PlanTest, ExpertsOfALayerMayBeDivided) {
  TinyLlamaOptions options;
  options.experts = 8;
  Open(options, 2);
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make(R"(
- {match: {layers: 0, experts: [0-2, 5]}, place: cpu:1}
- {match: {role: experts}, place: cpu:2}
- {match: {role: [embedding, attention, norm, lm_head]}, place: cpu:0}
)",
                                             Devices(3)));
  EXPECT_THAT(
      Places(plan),
      ElementsAre("cpu:0: embedding, layer 0 attention + router", "cpu:1: layer 0 experts 0-2 5",
                  "cpu:2: layer 0 experts 3-4 6-7", "cpu:0: layer 1 attention + router",
                  "cpu:2: layer 1 experts", "cpu:0: norm, lm_head"))
      << "a router that no rule places goes with attention";
  EXPECT_EQ(plan.modules[2].rule, (RuleRef{"r.yaml", 4, 3, 2}));
  EXPECT_EQ(plan.modules[3].module, "model.layers.0.mlp.experts[0-2]");
  EXPECT_EQ(plan.modules[4].module, "model.layers.0.mlp.experts[5]");
  EXPECT_EQ(plan.modules[5].module, "model.layers.0.mlp.experts[3-4]");
  EXPECT_EQ(plan.modules[5].rule, (RuleRef{"r.yaml", 3, 3, 1}));
  int64_t stored = 0, in_file = 0;
  for (const PlacedModule& module : plan.modules) stored += module.stored_bytes;
  for (const model::GgufTensor& tensor : file_->tensors()) in_file += tensor.bytes;
  EXPECT_EQ(stored, in_file) << "every byte belongs to exactly one module";
}

TEST_F(PlanTest, WholeLayersWithExpertsReadAsLayers) {
  TinyLlamaOptions options;
  options.experts = 4;
  Open(options, 3);
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make("- {match: {layers: 1, role: mlp}, place: cpu:1}\n"
                                             "- {match: {}, place: cpu:0}\n",
                                             Devices(2)));
  EXPECT_THAT(Places(plan), ElementsAre("cpu:0: embedding, layer 0, layer 1 attention",
                                        "cpu:1: layer 1 mlp", "cpu:0: layer 2, norm, lm_head"));
  EXPECT_THAT(CollapseModules(config_, plan.workers[0].ops),
              ElementsAre("model.embed_tokens", "model.layers.0", "model.layers.1.self_attn",
                          "model.layers.2", "model.norm", "lm_head"));
  EXPECT_THAT(CollapseModules(config_, {{{OpKind::kRouter, 0},
                                         {OpKind::kExperts, 0, 2, 3},
                                         {OpKind::kRouter, 1},
                                         {OpKind::kExperts, 1, 2, 3},
                                         {OpKind::kExperts, 2, 0, 4}}}),
              ElementsAre("model.layers.0-1.mlp.gate", "model.layers.0-1.mlp.experts[2]",
                          "model.layers.2.mlp.experts"));
}

TEST_F(PlanTest, RefusesExpertsThatAreNotThere) {
  TinyLlamaOptions options;
  options.experts = 4;
  Open(options, 2);
  EXPECT_THAT(
      Make("- {match: {experts: 2-4}, place: cpu:0}\n"
           "- {match: {role: [embedding, attention, norm, lm_head]}, place: cpu:0}\n",
           Devices(1)),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "r.yaml: no rule places model.layers.0-1.mlp.experts[0-1]; a last rule "
               "`match: {}` takes what is left\n"
               "r.yaml:1:21: the rule names expert 4, but the model's layers have 4 (0-3)"));
}

TEST_F(PlanTest, CollapsesModulesThatNobodyOwns) {
  EXPECT_THAT(Make("- {match: {role: [embedding, norm, lm_head]}, place: cpu:0}\n"
                   "- {match: {layers: [0, 3]}, place: cpu:0}\n"
                   "- {match: {layers: 5-6, role: attention}, place: cpu:0}\n",
                   Devices(1)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "r.yaml: no rule places model.layers.1-2, model.layers.4, "
                       "model.layers.5-6.mlp, model.layers.7; a last rule `match: {}` takes what "
                       "is left"));
}

TEST_F(PlanTest, RefusesWeightTypesThatAWorkerCannotComputeWith) {
  TinyLlamaOptions options;
  options.type = WeightType::kQ8_0;
  Open(options);
  std::vector<DeviceInfo> devices = Devices(2);
  devices[1].weight_types = {WeightType::kF32, WeightType::kQ4_0};
  EXPECT_THAT(
      Make("- {match: {layers: 6-7}, place: cpu:1}\n- {match: {}, place: cpu:0}\n", devices),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "cpu:1 cannot compute with Q8_0 weights: blk.6.attn_q.weight, "
               "blk.6.attn_k.weight, blk.6.attn_v.weight and 11 more"));
}

TEST_F(PlanTest, RefusesTooLittleMemoryWithFiguresAndWhatWouldFit) {
  const std::string halves = "- {match: {}, split: {cpu:0: 4, cpu:1: 4}}\n";
  ASSERT_OK_AND_ASSIGN(const Plan whole, Make(halves, Devices(2)));
  std::vector<DeviceInfo> devices = Devices(2);
  const model::WorkerMemory& memory = whole.workers[1].memory;
  // Room for nine of sixteen blocks, and for what depends on them.
  devices[1].memory_bytes = memory.total() - memory.kv + memory.kv * 9 / 16;
  const absl::StatusOr<Plan> plan = Make(halves, devices);
  EXPECT_THAT(plan,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("needs more memory than its workers have (context_length "
                                       "256, kv_tokens 512, chunk_size 56, max_batch_size 8)"),
                             HasSubstr(" too little"), HasSubstr("fits\n"),
                             HasSubstr(FormatBytes(memory.total())),
                             HasSubstr(FormatBytes(devices[1].memory_bytes)),
                             HasSubstr("What would fit:\nkv_tokens 288 with context_length 256"))));
  // The advice is true, and the next larger cache is not.
  shape_.num_kv_blocks = 9;
  EXPECT_OK(Make(halves, devices));
  shape_.num_kv_blocks = 10;
  EXPECT_THAT(Make(halves, devices),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("kv_tokens 288")));
}

TEST_F(PlanTest, AdvisesAShorterContextWhereOneSequenceDoesNotFit) {
  ASSERT_OK_AND_ASSIGN(const Plan whole, Make(Devices(1)));
  std::vector<DeviceInfo> devices = Devices(1);
  const model::WorkerMemory& memory = whole.workers[0].memory;
  devices[0].memory_bytes = memory.total() - memory.kv + memory.kv * 4 / 16;
  EXPECT_THAT(Make(devices), StatusIs(absl::StatusCode::kResourceExhausted,
                                      HasSubstr("kv_tokens 128 with context_length 128")));
  devices[0].memory_bytes = memory.weights_packed;
  EXPECT_THAT(Make(devices),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("nothing: no KV cache, chunk or batch is small enough")));
}

// Both ends of an edge between hosts have a ring, and a hop takes longer.
TEST_F(PlanTest, EdgesBetweenHostsCostRingsAndTime) {
  const auto plan = [&](const std::vector<std::string>& specs) {
    return PlanByRules(config_, *file_, nullptr, ParseDeviceSpecs(specs).value(), shape_);
  };
  const Plan near = plan({"cpu:0:8GiB", "cpu:1:8GiB"});
  const Plan far = plan({"cpu:0:8GiB", "host-b/cpu:0:8GiB"});
  EXPECT_TRUE(far.diagnostics.empty());
  EXPECT_EQ(far.workers[0].memory.communication,
            near.workers[0].memory.communication + model::kRingBytes);
  EXPECT_EQ(far.workers[1].memory.communication,
            near.workers[1].memory.communication + model::kRingBytes);
  EXPECT_GT(PredictSpeed(config_, far).hop_seconds, 2 * PredictSpeed(config_, near).hop_seconds);
}

TEST_F(PlanTest, NeedsAWorker) {
  EXPECT_THAT(Make(Devices(0)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no worker")));
}

TEST_F(PlanTest, DescribesItself) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, Make("- {match: {layers: 0-3}, place: cpu:0}\n"
                                             "- {match: {role: embedding}, place: cpu:0}\n"
                                             "- {match: {}, place: cpu:1}\n",
                                             Devices(2)));
  const std::string text = DescribePlan(plan, config_);
  EXPECT_THAT(text, HasSubstr("(llama, 8 layers) on 2 workers\n"));
  EXPECT_THAT(text, HasSubstr("  cpu:0: embedding, layers 0-3\n"
                              "  cpu:1: layers 4-7, norm, lm_head\n"
                              "route: coordinator -> cpu:0 -> cpu:1 -> coordinator\n"
                              "context: 256 tokens per sequence; KV cache: 512 tokens, "));
  EXPECT_THAT(text, HasSubstr("4.00 GiB  fits\n"));
  EXPECT_THAT(text, Not(HasSubstr(" \n"))) << "no trailing spaces";
}

TEST(FormatTest, Tables) {
  EXPECT_EQ(FormatTable({{"a", "bb"}, {"long", "c"}}), "  a     bb\n  long   c\n");
}

}  // namespace
}  // namespace dovetail::coordinator
