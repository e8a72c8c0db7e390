#include "model/memory_plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace dovetail::model {
namespace {

constexpr int64_t kAlign = 64;

// Quantised activations, once for each block size that weight types ask for.
struct ActivationNames {
  const char *q8, *d, *bsum;
  int block = 32;  // the smallest that uses them
};
constexpr ActivationNames kProductActivations[] = {{"act_q8", "act_d", "act_bsum"},
                                                   {"act2_q8", "act2_d", "act2_bsum"},
                                                   {"act3_q8", "act3_d", "act3_bsum", 16}};
constexpr ActivationNames kNormActivations[] = {{"normed_q8", "normed_d", "normed_bsum"},
                                                {"normed2_q8", "normed2_d", "normed2_bsum"},
                                                {"normed3_q8", "normed3_d", "normed3_bsum", 16}};

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool Owns(absl::Span<const Op> ops, OpKind kind) {
  return std::any_of(ops.begin(), ops.end(), [&](const Op& op) { return op.kind == kind; });
}

int64_t PackedSlotBytes(const WeightSlot& slot, PackedLayout layout) {
  if (slot.spec.is_vector) return RoundUp(slot.spec.cols * 4, kAlign);
  // An embedding is read row by row, a copy of what the file has.
  if (slot.op.kind == OpKind::kEmbedding) layout = PackedLayout::kRaw;
  return PackedBytes(layout, slot.type, slot.spec.rows, slot.spec.cols);
}

// The longest row of any product that the ops compute.
int64_t LongestProduct(const ModelConfig& config, absl::Span<const Op> ops) {
  int64_t longest = 0;
  for (const Op& op : ops) {
    if (op.kind == OpKind::kEmbedding || op.kind == OpKind::kNorm) continue;
    for (const WeightSpec& spec : WeightsOf(config, op)) {
      if (!spec.is_vector) longest = std::max(longest, spec.cols);
    }
  }
  return longest;
}

}  // namespace

absl::StatusOr<std::vector<WeightSlot>> LayOutWeights(const ModelConfig& config,
                                                      const GgufFile& file,
                                                      absl::Span<const Op> ops,
                                                      PackedLayout layout) {
  std::vector<WeightSlot> slots;
  int64_t offset = 0;
  for (const Op& op : ops) {
    for (WeightSpec& spec : WeightsOf(config, op)) {
      const GgufTensor* tensor = file.FindTensor(spec.tensor);
      if (tensor == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat(file.path(), ": missing tensor ", spec.tensor));
      }
      WeightSlot slot;
      slot.op = op;
      slot.spec = std::move(spec);
      slot.type = tensor->type;
      slot.offset = offset;
      slot.bytes = PackedSlotBytes(slot, layout);
      slot.stored_bytes = tensor->bytes;
      DT_CHECK_EQ(slot.bytes % kAlign, 0);
      offset += slot.bytes;
      slots.push_back(std::move(slot));
    }
  }
  return slots;
}

int64_t KvBytesPerBlockPerLayer(const ModelConfig& config, KvType type) {
  return int64_t{2} * kKvBlockTokens * config.num_key_value_heads * config.head_dim *
         KvElementBytes(type);
}

int64_t AttentionScratchFloats(int32_t head_dim) {
  // For a batch of 48 query vectors the scores of a split and two sums; one block of keys and
  // values.
  constexpr int64_t kQueryBatch = 48;
  const int64_t dim = RoundUp(head_dim, 16);
  return kQueryBatch * (kKvSplitTokens + 2 * dim) + 2 * dim * kKvBlockTokens;
}

std::vector<WorkspaceBuffer> WorkspaceBuffers(const ModelConfig& config, absl::Span<const Op> ops,
                                              const StepShape& shape, int num_threads) {
  const int64_t rows = shape.max_rows;
  const int64_t logit_rows = shape.max_logit_rows;
  const int64_t any_rows = std::max(rows, logit_rows);
  const int64_t hidden = config.hidden_size;
  std::vector<WorkspaceBuffer> buffers;
  const auto add = [&](const char* name, int64_t elements, int64_t element_bytes) {
    buffers.push_back({name, RoundUp(elements * element_bytes, kAlign)});
  };
  const auto add_activations = [&](const ActivationNames& names, int64_t cols) {
    const int64_t k = RoundUp(cols, 256);
    add(names.q8, any_rows * k, 1);
    add(names.d, any_rows * (k / names.block), 4);
    add(names.bsum, any_rows * (k / 16), 2);
  };
  add("x", any_rows * hidden, 4);
  add("normed", any_rows * hidden, 4);
  if (Owns(ops, OpKind::kAttention)) {
    const int64_t q = int64_t{config.num_attention_heads} * config.head_dim;
    const int64_t kv = int64_t{config.num_key_value_heads} * config.head_dim;
    add("q", rows * q, 4);
    add("k", rows * kv, 4);
    add("v", rows * kv, 4);
    add("attn", rows * q, 4);
    add("cos_sin", rows * config.rope_dim, 4);
    add("attn_scratch", num_threads * AttentionScratchFloats(config.head_dim), 4);
  }
  if (Owns(ops, OpKind::kMlp)) {
    add("gate", rows * config.intermediate_size, 4);
    add("up", rows * config.intermediate_size, 4);
  }
  if (const int64_t k = LongestProduct(config, ops); k > 0) {
    for (const ActivationNames& names : kProductActivations) add_activations(names, k);
    for (const ActivationNames& names : kNormActivations) add_activations(names, hidden);
  }
  if (Owns(ops, OpKind::kNorm) || Owns(ops, OpKind::kLmHead)) {
    add("logit_rows", logit_rows * hidden, 4);
  }
  if (Owns(ops, OpKind::kLmHead)) {
    add("logits", logit_rows * config.vocab_size, 4);
    add("probs", int64_t{num_threads} * config.vocab_size, 4);
  }
  return buffers;
}

absl::StatusOr<WorkerMemory> PlanWorkerMemory(const ModelConfig& config, const GgufFile& file,
                                              absl::Span<const Op> ops, const StepShape& shape,
                                              PackedLayout layout, int num_threads,
                                              int64_t communication_bytes) {
  DT_ASSIGN_OR_RETURN(const std::vector<WeightSlot> slots,
                      LayOutWeights(config, file, ops, layout));
  WorkerMemory memory;
  for (const WeightSlot& slot : slots) {
    memory.weights_stored += slot.stored_bytes;
    memory.weights_packed += slot.bytes;
  }
  const auto num_attention = std::count_if(
      ops.begin(), ops.end(), [](const Op& op) { return op.kind == OpKind::kAttention; });
  memory.kv = num_attention * shape.num_kv_blocks * KvBytesPerBlockPerLayer(config, shape.kv_type);
  for (const WorkspaceBuffer& buffer : WorkspaceBuffers(config, ops, shape, num_threads)) {
    memory.workspace += buffer.bytes;
  }
  memory.communication = communication_bytes;
  memory.runtime = kRuntimeBytes;
  return memory;
}

}  // namespace dovetail::model
