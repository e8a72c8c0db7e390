#include "model/memory_plan.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/sampling_params.h"
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
constexpr ActivationNames kExpertInputs[] = {
    {"expert_in_q8", "expert_in_d", "expert_in_bsum"},
    {"expert_in2_q8", "expert_in2_d", "expert_in2_bsum"},
    {"expert_in3_q8", "expert_in3_d", "expert_in3_bsum", 16}};
constexpr ActivationNames kExpertActivations[] = {
    {"expert_act_q8", "expert_act_d", "expert_act_bsum"},
    {"expert_act2_q8", "expert_act2_d", "expert_act2_bsum"},
    {"expert_act3_q8", "expert_act3_d", "expert_act3_bsum", 16}};

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool Owns(absl::Span<const Op> ops, OpKind kind) {
  return std::any_of(ops.begin(), ops.end(), [&](const Op& op) { return op.kind == kind; });
}

int64_t PackedSlotBytes(const WeightSlot& slot, PackedLayout layout) {
  const int64_t experts = std::max<int64_t>(slot.spec.experts, 1);
  if (slot.spec.is_vector) return RoundUp(experts * slot.spec.cols * 4, kAlign);
  // An embedding is read row by row, a copy of what the file has.
  if (slot.op.kind == OpKind::kEmbedding) layout = PackedLayout::kRaw;
  return experts * PackedBytes(layout, slot.type, slot.spec.rows, slot.spec.cols);
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

bool OwnsExperts(const ModelConfig& config, absl::Span<const Op> ops) {
  return std::any_of(ops.begin(), ops.end(), [&](const Op& op) {
    return op.kind == OpKind::kMlp && config.HasExperts(op.layer);
  });
}

// Of the widest dense layer or shared expert.
int64_t GateColumns(const ModelConfig& config, absl::Span<const Op> ops) {
  int64_t columns = 0;
  for (const Op& op : ops) {
    if (op.kind != OpKind::kMlp) continue;
    columns = std::max<int64_t>(columns, config.HasExperts(op.layer)
                                             ? config.experts.shared_intermediate_size
                                             : config.intermediate_size);
  }
  return columns;
}

class BufferList {
 public:
  void Add(const char* name, int64_t elements, int64_t element_bytes) {
    buffers_.push_back({name, RoundUp(elements * element_bytes, kAlign)});
  }
  // Every form of [rows, cols].
  void AddActivations(absl::Span<const ActivationNames> forms, int64_t rows, int64_t cols) {
    const int64_t k = RoundUp(cols, 256);
    for (const ActivationNames& names : forms) {
      Add(names.q8, rows * k, 1);
      Add(names.d, rows * (k / names.block), 4);
      Add(names.bsum, rows * (k / 16), 2);
    }
  }
  std::vector<WorkspaceBuffer> Take() { return std::move(buffers_); }

 private:
  std::vector<WorkspaceBuffer> buffers_;
};

void AddAttention(const ModelConfig& config, int64_t rows, int num_threads, BufferList* buffers) {
  const int64_t q = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t kv = int64_t{config.num_key_value_heads} * config.head_dim;
  buffers->Add("q", rows * q, 4);
  buffers->Add("k", rows * kv, 4);
  buffers->Add("v", rows * kv, 4);
  buffers->Add("attn", rows * q, 4);
  buffers->Add("cos_sin", rows * config.rope_dim, 4);
  if (!config.rope_inv_freq_local.empty()) {
    buffers->Add("cos_sin_local", rows * config.rope_dim, 4);
  }
  buffers->Add("attn_scratch", num_threads * AttentionScratchFloats(config.head_dim), 4);
}

void AddExperts(const ModelConfig& config, int64_t rows, BufferList* buffers) {
  const ExpertConfig& experts = config.experts;
  const int64_t pairs = rows * experts.num_used;
  const int64_t slots = rows * (experts.num_used + 1);
  buffers->Add("router", rows * experts.count, 4);
  buffers->Add("shared_gate", rows, 4);
  buffers->Add("slot_experts", pairs, 4);
  buffers->Add("slot_weights", slots, 4);
  buffers->Add("slot_sources", slots, 4);
  buffers->Add("pair_rows", pairs, 4);
  buffers->Add("expert_begin", experts.count + 1, 4);
  buffers->Add("expert_gate", pairs * experts.intermediate_size, 4);
  buffers->Add("expert_up", pairs * experts.intermediate_size, 4);
  buffers->Add("expert_y", (pairs + rows) * config.hidden_size, 4);
  buffers->AddActivations(kExpertInputs, pairs, config.hidden_size);
  buffers->AddActivations(kExpertActivations, pairs, experts.intermediate_size);
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

int64_t FrameBytes(const StepShape& shape) {
  constexpr int64_t kStepHeader = 64, kSequenceStep = 72, kAdjustment = 12;
  constexpr int64_t kOutputHeader = 48, kSequenceOutput = 24, kLogprob = 8;
  const int64_t per_sequence =
      kSequenceStep + int64_t{4} * shape.max_blocks_per_sequence() +
      kAdjustment * (int64_t{shape.context_length} + kMaxExtraAdjustments) +
      int64_t{4} * MaskWords(shape.vocab_size);
  const int64_t frame = kStepHeader + shape.max_sequences * per_sequence +
                        int64_t{4} * shape.max_rows + int64_t{8} * shape.max_logit_rows;
  const int64_t output = kOutputHeader + kSequenceOutput * shape.max_sequences +
                         kLogprob * (1 + kMaxTopLogprobs) * shape.max_logit_rows;
  return frame + output;
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
  BufferList buffers;
  buffers.Add("x", any_rows * hidden, 4);
  buffers.Add("normed", any_rows * hidden, 4);
  if (Owns(ops, OpKind::kAttention)) AddAttention(config, rows, num_threads, &buffers);
  if (const int64_t columns = GateColumns(config, ops); columns > 0) {
    buffers.Add("gate", rows * columns, 4);
    buffers.Add("up", rows * columns, 4);
  }
  if (OwnsExperts(config, ops)) AddExperts(config, rows, &buffers);
  if (const int64_t k = LongestProduct(config, ops); k > 0) {
    buffers.AddActivations(kProductActivations, any_rows, k);
    buffers.AddActivations(kNormActivations, any_rows, hidden);
  }
  if (Owns(ops, OpKind::kNorm) || Owns(ops, OpKind::kLmHead)) {
    buffers.Add("logit_rows", logit_rows * hidden, 4);
  }
  if (Owns(ops, OpKind::kLmHead)) {
    buffers.Add("logits", logit_rows * config.vocab_size, 4);
    buffers.Add("probs", int64_t{num_threads} * config.vocab_size, 4);
  }
  return buffers.Take();
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
  memory.runtime = kRuntimeBytes + FrameBytes(shape);
  return memory;
}

}  // namespace dovetail::model
