#include "model/row_parts.h"

#include <map>
#include <string>

#include "gmock/gmock.h"
#include "model/memory_plan.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

class RowPartsTest : public ::testing::Test {
 protected:
  void Open(const testing::TinyLlamaOptions& options) {
    const std::string path = ::testing::TempDir() + "/row_parts_test.gguf";
    testing::WriteTinyLlama(path, options);
    ASSERT_OK_AND_ASSIGN(file_, GgufFile::Open(path));
    ASSERT_OK_AND_ASSIGN(config_, LoadModelConfig(*file_));
  }
  static Op Shared(Op op, int members, int member) {
    op.rows.members = members;
    op.rows.member = member;
    for (int i = 0; i < members; ++i) op.rows.shares[i] = 1 + i;
    return op;
  }

  std::unique_ptr<GgufFile> file_;
  ModelConfig config_;
};

TEST_F(RowPartsTest, BlocksOfTheLastMatrixStayWhole) {
  Open({.hidden = 256, .heads = 8, .kv_heads = 4, .ffn = 1024, .type = WeightType::kQ4_K});
  const Op mlp = Shared({OpKind::kMlp, 0}, 2, 0);
  EXPECT_THAT(RowPartsOf(config_, *file_, mlp).inner, ElementsAre(Range{0, 256}, Range{256, 1024}));
  EXPECT_THAT(RowPartsOf(config_, *file_, mlp).outer, ElementsAre(Range{0, 80}, Range{80, 256}));
  EXPECT_THAT(RowPartsOf(config_, mlp, WeightType::kF32).inner,
              ElementsAre(Range{0, 336}, Range{336, 1024}));
  const RowParts attention = RowPartsOf(config_, *file_, Shared({OpKind::kAttention, 0}, 2, 0));
  EXPECT_THAT(attention.kv_heads, ElementsAre(Range{0, 1}, Range{1, 4}));
  EXPECT_THAT(attention.inner, ElementsAre(Range{0, 64}, Range{64, 256}));
  const RowParts head = RowPartsOf(config_, *file_, Shared({OpKind::kLmHead}, 2, 0));
  EXPECT_THAT(head.inner, ElementsAre(Range{0, 112}, Range{112, 320}));
  EXPECT_THAT(RowPartsOf(config_, *file_, Shared({OpKind::kNorm}, 2, 0)).inner, IsEmpty());
}

// What the members have is what one worker has, with norms and biases once for each; so is the KV
// cache.
TEST_F(RowPartsTest, MembersTogetherHaveEveryRowOnce) {
  for (const int experts : {0, 4}) {
    Open({.hidden = 128,
          .heads = 4,
          .kv_heads = 4,
          .ffn = 256,
          .experts = experts,
          .type = WeightType::kQ8_0});
    const StepShape shape = {.max_rows = 8,
                             .max_sequences = 2,
                             .max_logit_rows = 4,
                             .context_length = 64,
                             .num_kv_blocks = 4};
    std::map<std::string, int64_t> rows, expected;
    int64_t kv = 0;
    for (const Op& op : OpsOf(config_)) {
      if (!WhyNotSplit(config_, op).empty()) continue;
      for (int member = 0; member < 3; ++member) {
        const Op own = Shared(op, 3, member);
        ASSERT_OK_AND_ASSIGN(const auto slots,
                             LayOutWeights(config_, *file_, {own}, PackedLayout::kRaw));
        for (const WeightSlot& slot : slots) {
          if (slot.spec.is_vector || slot.spec.role == WeightRole::kRouter) continue;
          EXPECT_EQ(slot.spec.tensor_first, rows[slot.spec.tensor]) << slot.spec.tensor;
          rows[slot.spec.tensor] += slot.spec.rows;
          expected[slot.spec.tensor] = slot.spec.tensor_stride;
        }
        kv += KvBytes(config_, {own}, shape);
      }
    }
    EXPECT_EQ(rows, expected);
    EXPECT_EQ(kv, KvBytes(config_, OpsOf(config_), shape));
  }
}

TEST_F(RowPartsTest, OnlyTheFirstMemberSamples) {
  Open({});
  const StepShape shape = {.max_rows = 8, .max_sequences = 2, .max_logit_rows = 4};
  const auto bytes = [&](int member, const std::string& name) {
    for (const WorkspaceBuffer& buffer : WorkspaceBuffers(
             config_, {Shared({OpKind::kLmHead}, 2, member)}, shape, PackedLayout::kP16, 1)) {
      if (buffer.name == name) return buffer.bytes;
    }
    return int64_t{0};
  };
  EXPECT_EQ(bytes(0, "logits"), 4 * 320 * 4);
  EXPECT_GT(bytes(0, "probs"), 0);
  EXPECT_EQ(bytes(1, "logits"), 4 * 208 * 4);
  EXPECT_EQ(bytes(1, "probs"), 0);
}

TEST_F(RowPartsTest, SomeOpsCannotBeShared) {
  Open({});
  EXPECT_THAT(WhyNotSplit(config_, {OpKind::kEmbedding}), HasSubstr("read, not multiplied"));
  EXPECT_THAT(WhyNotSplit(config_, {OpKind::kAttention, 0}), IsEmpty());
  EXPECT_THAT(
      LayOutWeights(config_, *file_, {Shared({OpKind::kAttention, 0}, 3, 0)}, PackedLayout::kRaw),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("3 workers cannot share the rows of model.layers.0.self_attn: it "
                         "has 2 KV heads")));
  EXPECT_EQ(RowUnitsOf(config_, *file_, {OpKind::kMlp, 0}).count, 4);
  EXPECT_EQ(RowUnitsOf(config_, *file_, {OpKind::kNorm}).count, 0);
  ModelConfig config = config_;
  config.qk_norm = QkNorm::kWholeRow;
  EXPECT_THAT(WhyNotSplit(config, {OpKind::kAttention, 0}), HasSubstr("all heads together"));
  EXPECT_THAT(WhyNotSplit(config, {OpKind::kMlp, 0}), IsEmpty());
  config.latent.kv_lora_rank = 64;
  EXPECT_THAT(WhyNotSplit(config, {OpKind::kAttention, 0}), HasSubstr("latent attention"));
}

}  // namespace
}  // namespace dovetail::model
