#include "model/memory_plan.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/quantized_rows.h"
#include "base/sampling_params.h"
#include "base/status_macros.h"
#include "model/row_parts.h"

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
constexpr ActivationNames kHeadActivations[] = {{"head_q8", "head_d", "head_bsum"},
                                                {"head2_q8", "head2_d", "head2_bsum"},
                                                {"head3_q8", "head3_d", "head3_bsum", 16}};
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

// The bytes of the file that the weight is made from.
int64_t StoredSlotBytes(const WeightSpec& spec, const GgufTensor& tensor) {
  if (spec.experts == 0 && spec.tensor_stride == 0) return tensor.bytes;
  return std::max<int64_t>(spec.experts, 1) * spec.stored_rows() *
         StoredBytes(tensor.type, spec.stored_cols());
}

void SetSource(const GgufTensor& tensor, WeightSlot* slot) {
  const WeightSpec& spec = slot->spec;
  const int64_t row_bytes = StoredBytes(tensor.type, spec.stored_cols());
  slot->source_stride =
      (spec.tensor_stride > 0 ? spec.tensor_stride : spec.stored_rows()) * row_bytes;
  slot->source_offset = spec.first_expert * slot->source_stride + spec.tensor_first * row_bytes;
}

int64_t PackedSlotBytes(const WeightSlot& slot, PackedLayout layout) {
  const int64_t experts = std::max<int64_t>(slot.spec.experts, 1);
  if (slot.spec.is_vector) return RoundUp(experts * slot.spec.cols * 4, kAlign);
  if (slot.in_place || slot.in_head) return 0;
  // An embedding is read row by row, a copy of what the file has.
  if (slot.op.kind == OpKind::kEmbedding) layout = PackedLayout::kRaw;
  return experts * PackedBytes(layout, slot.type, slot.spec.rows, slot.spec.cols);
}

bool StaysInFile(const WeightSlot& slot, PackedLayout layout) {
  if (slot.spec.is_vector || slot.spec.transposed || slot.in_head) return false;
  return layout == PackedLayout::kInPlace ||
         (layout == PackedLayout::kP16Device && slot.op.kind == OpKind::kEmbedding);
}

// Whether the worker's memory has all rows of its embedding in its head.
bool HeadHoldsEmbedding(const ModelConfig& config, absl::Span<const Op> ops, PackedLayout layout) {
  return config.tie_word_embeddings && layout != PackedLayout::kInPlace &&
         std::any_of(ops.begin(), ops.end(),
                     [](const Op& op) { return op.kind == OpKind::kLmHead && op.rows.whole(); });
}

void PlaceInHead(std::vector<WeightSlot>* slots) {
  const auto head = std::find_if(slots->begin(), slots->end(), [](const WeightSlot& slot) {
    return slot.spec.role == WeightRole::kLmHead;
  });
  for (WeightSlot& slot : *slots) {
    if (slot.in_head) slot.offset = head->offset;
  }
}

bool IsProduct(const Op& op) { return op.kind != OpKind::kEmbedding && op.kind != OpKind::kNorm; }

// The longest row of any product that the ops compute, aside from experts, which have buffers of
// their own, and routers, which read what the norm makes.
int64_t LongestProduct(const ModelConfig& config, absl::Span<const Op> ops) {
  int64_t longest = 0;
  for (const Op& op : ops) {
    if (!IsProduct(op) || op.kind == OpKind::kExperts || op.kind == OpKind::kRouter) continue;
    for (const WeightSpec& spec : WeightsOf(config, op)) {
      if (!spec.is_vector) longest = std::max(longest, spec.cols);
    }
  }
  return longest;
}

// The longest row of any matrix that the ops multiply with.
int64_t LongestRow(const ModelConfig& config, absl::Span<const Op> ops) {
  int64_t longest = 0;
  for (const Op& op : ops) {
    if (!IsProduct(op)) continue;
    for (const WeightSpec& spec : WeightsOf(config, op)) {
      if (!spec.is_vector) longest = std::max(longest, spec.cols);
    }
  }
  return longest;
}

// The most experts of one layer that are among the ops.
int64_t MostExperts(absl::Span<const Op> ops) {
  std::map<int32_t, int64_t> of_layer;
  int64_t most = 0;
  for (const Op& op : ops) {
    if (op.kind != OpKind::kExperts) continue;
    int64_t& experts = of_layer[op.layer];
    experts += op.expert_end - op.expert_begin;
    most = std::max(most, experts);
  }
  return most;
}

// Of the widest dense layer or shared expert.
int64_t GateColumns(const ModelConfig& config, absl::Span<const Op> ops) {
  int64_t columns = 0;
  if (Owns(ops, OpKind::kMlp)) columns = config.intermediate_size;
  if (Owns(ops, OpKind::kSharedExperts)) {
    columns = std::max<int64_t>(columns, config.experts.shared_intermediate_size);
  }
  return columns;
}

// Of all gates of one layer: no activation block is shorter than a panel.
int64_t GatePanels(const ModelConfig& config, absl::Span<const Op> ops) {
  const auto panels_of = [](int64_t columns) { return (columns + kPanelRows - 1) / kPanelRows; };
  return panels_of(GateColumns(config, ops)) +
         MostExperts(ops) * panels_of(config.experts.intermediate_size);
}

class BufferList {
 public:
  explicit BufferList(bool on_device = false) : on_device_(on_device) {}
  bool on_device() const { return on_device_; }
  void Add(const char* name, int64_t elements, int64_t element_bytes) {
    buffers_.push_back({name, RoundUp(elements * element_bytes, kAlign)});
  }
  // Every form of [rows, cols].
  void AddActivations(absl::Span<const ActivationNames> forms, int64_t rows, int64_t cols) {
    const int64_t k = RoundUp(cols, 256);
    for (const ActivationNames& names : forms) {
      Add(names.q8, rows * QuantizedRowBytes(k), 1);
      Add(names.d, rows * (k / names.block), 4);
      Add(names.bsum, rows * (k / 16), 2);
    }
  }
  std::vector<WorkspaceBuffer> Take() { return std::move(buffers_); }

 private:
  bool on_device_;
  std::vector<WorkspaceBuffer> buffers_;
};

// What threads work with, and where those that share the contexts of few rows leave their parts:
// one row's of the longest context.
void AddAttentionScratch(const ModelConfig& config, int32_t context_length, int num_threads,
                         BufferList* buffers) {
  const KvShape kv = config.kv_shape();
  if (!buffers->on_device()) {
    buffers->Add("attn_scratch", num_threads * AttentionScratchFloats(kv), 4);
    if (num_threads == 1) return;
  }
  const int64_t splits = (context_length + kKvSplitTokens - 1) / kKvSplitTokens;
  buffers->Add("attn_parts", config.num_attention_heads * splits * AttentionPartFloats(kv), 4);
}

void AddAttention(const ModelConfig& config, const StepShape& shape, int num_threads,
                  BufferList* buffers) {
  const int64_t rows = shape.max_rows;
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
  AddAttentionScratch(config, shape.context_length, num_threads, buffers);
}

void AddLatentAttention(const ModelConfig& config, const StepShape& shape, int num_threads,
                        BufferList* buffers) {
  const int64_t rows = shape.max_rows;
  const LatentConfig& latent = config.latent;
  const KvShape kv = config.kv_shape();
  const int64_t heads = config.num_attention_heads;
  const int64_t tile_heads = std::min<int64_t>(rows, kLatentTileRows) * heads;
  buffers->Add("q", rows * heads * config.head_dim, 4);
  if (latent.q_lora_rank > 0) buffers->Add("q_lora", rows * latent.q_lora_rank, 4);
  buffers->Add("k", rows * kv.key_dim, 4);
  buffers->Add("attn", rows * heads * latent.v_head_dim, 4);
  buffers->Add("cos_sin", rows * config.rope_dim, 4);
  AddAttentionScratch(config, shape.context_length, num_threads, buffers);
  buffers->Add("q_latent", tile_heads * kv.key_dim, 4);
  buffers->Add("latent", tile_heads * kv.value_dim, 4);
  buffers->AddActivations(kHeadActivations, tile_heads,
                          std::max(latent.kv_lora_rank, latent.nope_dim));
}

// Where several workers share its rows, the first of them gathers and samples.
void AddLmHead(const ModelConfig& config, absl::Span<const Op> ops, int64_t logit_rows,
               int num_threads, BufferList* buffers) {
  for (const Op& op : ops) {
    if (op.kind != OpKind::kLmHead) continue;
    if (op.rows.member > 0) {
      const RowParts parts = RowPartsOf(config, op, WeightType::kF32);
      buffers->Add("logits", logit_rows * parts.inner[op.rows.member].size(), 4);
      continue;
    }
    buffers->Add("logits", logit_rows * config.vocab_size, 4);
    if (buffers->on_device()) {
      buffers->Add("best_tokens", logit_rows, 4);
      continue;
    }
    buffers->Add("probs", int64_t{num_threads} * config.vocab_size, 4);
    buffers->Add("ids", int64_t{num_threads} * config.vocab_size, 4);
  }
}

// Groups of one row each where there are few pairs, else of kMostGroupRows and what is left of each
// expert's.
void AddExpertGroups(const ModelConfig& config, absl::Span<const Op> ops, bool streams,
                     int64_t pairs, int64_t own_experts, BufferList* buffers) {
  constexpr int64_t kGroupBytes = 16;
  int64_t layers = std::count_if(ops.begin(), ops.end(),
                                 [](const Op& op) { return op.kind == OpKind::kExperts; });
  if (streams) layers *= 2;  // layers are bound without streaming and with it
  buffers->Add("expert_groups", std::max<int64_t>(pairs, own_experts), kGroupBytes);
  buffers->Add("expert_num_groups", 1, 4);
  buffers->Add("expert_places", layers * config.experts.count, 4);
}

void AddExpertParts(const ModelConfig& config, absl::Span<const Op> ops, bool streams, int64_t rows,
                    BufferList* buffers) {
  const ExpertConfig& experts = config.experts;
  const int64_t slots = RowShapeOf(config).slots();
  const int64_t own_experts = MostExperts(ops);
  const bool shared = Owns(ops, OpKind::kSharedExperts);
  if (!shared && own_experts == 0 && !Owns(ops, OpKind::kRouter)) return;
  buffers->Add("slot_experts", rows * experts.num_used, 4);
  buffers->Add("slot_weights", rows * slots, 4);
  if (Owns(ops, OpKind::kRouter)) buffers->Add("router", rows * experts.count, 4);
  if (shared) buffers->Add("shared_gate", rows, 4);
  if (own_experts == 0) {
    if (shared) buffers->Add("partials", rows * config.hidden_size, 4);
    return;
  }
  // A row uses an expert once.
  const int64_t pairs = rows * std::min<int64_t>(experts.num_used, own_experts);
  buffers->Add("slot_sources", rows * slots, 4);
  buffers->Add("pair_rows", pairs, 4);
  buffers->Add("expert_begin", experts.count + 1, 4);
  if (buffers->on_device()) {
    AddExpertGroups(config, ops, streams, pairs, own_experts, buffers);
  } else {
    buffers->Add("expert_order", own_experts + 1, 4);
  }
  buffers->Add("expert_gate", pairs * experts.intermediate_size, 4);
  buffers->Add("expert_up", pairs * experts.intermediate_size, 4);
  buffers->AddActivations(kExpertInputs, pairs, config.hidden_size);
  buffers->AddActivations(kExpertActivations, pairs, experts.intermediate_size);
  buffers->Add("partials", rows * slots * config.hidden_size, 4);
}

// The largest of what workers that share rows gather at once, in any form: residual streams, what
// attention and activation functions make, logits.
int64_t GatheredFloats(const ModelConfig& config, absl::Span<const Op> ops,
                       const StepShape& shape) {
  int64_t floats = 0;
  const int64_t any_rows = std::max(shape.max_rows, shape.max_logit_rows);
  for (const Op& op : ops) {
    if (op.rows.whole()) continue;
    const int64_t cols = std::max<int64_t>(config.hidden_size, LongestProduct(config, {op}));
    floats = std::max(floats, any_rows * RoundUp(cols, 256));
    if (op.kind == OpKind::kExperts) {
      const int64_t pairs = int64_t{shape.max_rows} * config.experts.num_used;
      floats = std::max(floats, pairs * RoundUp(config.experts.intermediate_size, 256));
    }
    if (op.kind == OpKind::kLmHead) {
      floats = std::max(floats, int64_t{shape.max_logit_rows} * config.vocab_size);
    }
  }
  return floats;
}

// What a step's rows are, as kernels read it.
void AddStepTables(const StepShape& shape, BufferList* buffers) {
  constexpr int64_t kSequenceBytes = 24;
  buffers->Add("step_sequences", shape.max_sequences, kSequenceBytes);
  buffers->Add("step_blocks", int64_t{shape.max_sequences} * shape.max_blocks_per_sequence(), 4);
  buffers->Add("step_rows", shape.max_logit_rows, 4);
}

}  // namespace

RowShape RowShapeOf(const ModelConfig& config) {
  RowShape row = {.hidden_size = config.hidden_size};
  if (config.experts.count == 0) return row;
  row.num_experts = config.experts.count;
  row.experts_used = config.experts.num_used;
  row.shared_slot = config.experts.shared_intermediate_size > 0;
  return row;
}

absl::StatusOr<std::vector<WeightSlot>> LayOutWeights(const ModelConfig& config,
                                                      const GgufFile& file,
                                                      absl::Span<const Op> ops,
                                                      PackedLayout layout) {
  std::vector<WeightSlot> slots;
  std::set<std::string> laid_out;
  int64_t offset = 0;
  const bool in_head = HeadHoldsEmbedding(config, ops, layout);
  for (const Op& op : ops) {
    std::vector<WeightSpec> specs = WeightsOf(config, op);
    if (!op.rows.whole()) DT_RETURN_IF_ERROR(TakeRows(config, file, op, &specs));
    for (WeightSpec& spec : specs) {
      if (!laid_out.insert(spec.tensor).second && spec.is_copy) continue;
      const GgufTensor* tensor = file.FindTensor(spec.tensor);
      if (tensor == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat(file.path(), ": missing tensor ", spec.tensor));
      }
      WeightSlot slot;
      slot.op = op;
      slot.spec = std::move(spec);
      slot.type = slot.spec.transposed ? TransposedType(tensor->type) : tensor->type;
      slot.offset = offset;
      slot.in_head = in_head && op.kind == OpKind::kEmbedding;
      slot.in_place = StaysInFile(slot, layout);
      slot.bytes = PackedSlotBytes(slot, layout);
      SetSource(*tensor, &slot);
      slot.stored_bytes = StoredSlotBytes(slot.spec, *tensor);
      DT_CHECK_EQ(slot.bytes % kAlign, 0);
      offset += slot.bytes;
      slots.push_back(std::move(slot));
    }
  }
  PlaceInHead(&slots);
  return slots;
}

WeightType TransposedType(WeightType type) { return IsFloat(type) ? type : WeightType::kF32; }

int64_t KvBytesPerBlockPerLayer(const ModelConfig& config, KvType type) {
  return KvBlockBytes(config.kv_shape(), type);
}

int64_t FrameBytes(const StepShape& shape) {
  constexpr int64_t kStepHeader = 88, kSequenceStep = 72, kAdjustment = 12, kCopy = 8;
  constexpr int64_t kOutputHeader = 56, kSequenceOutput = 32, kLogprob = 8;
  const int64_t per_sequence =
      kSequenceStep + int64_t{4} * shape.max_blocks_per_sequence() +
      kAdjustment * (int64_t{shape.context_length} + kMaxExtraAdjustments) +
      int64_t{4} * MaskWords(shape.vocab_size);
  const int64_t frame = kStepHeader + shape.max_sequences * per_sequence +
                        kCopy * shape.max_block_copies() + int64_t{4} * shape.max_rows +
                        int64_t{8} * shape.max_logit_rows + int64_t{4} * kMaxRouteSegments;
  const int64_t output = kOutputHeader + kSequenceOutput * shape.max_sequences +
                         kLogprob * (1 + kMaxTopLogprobs) * shape.max_logit_rows +
                         int64_t{4} * kMaxRouteSegments;
  return frame + output;
}

int64_t KvBytes(const ModelConfig& config, absl::Span<const Op> ops, const StepShape& shape) {
  int64_t bytes = 0;
  for (const Op& op : ops) {
    if (op.kind != OpKind::kAttention) continue;
    bytes += int64_t{shape.num_blocks_in_all()} *
             KvBlockBytes(KvShapeOf(config, op), shape.KvTypeOf(op.layer));
  }
  return bytes;
}

int64_t AttentionScratchFloats(const KvShape& shape) {
  // For a batch of 48 query vectors the scores of a split and two sums; one block of keys and
  // values; with kLatent the queries, transposed.
  constexpr int64_t kQueryBatch = 48;
  const int64_t keys = RoundUp(shape.key_dim, 16), values = RoundUp(shape.value_dim, 16);
  const int64_t transposed = shape.layout == KvLayout::kLatent ? keys : 0;
  return kQueryBatch * (kKvSplitTokens + 2 * values + transposed) +
         (keys + values) * kKvBlockTokens;
}

int64_t AttentionPartFloats(const KvShape& shape) { return 16 + RoundUp(shape.value_dim, 16); }

std::vector<WorkspaceBuffer> WorkspaceBuffers(const ModelConfig& config,
                                              absl::Span<const Op> own_ops, const StepShape& shape,
                                              PackedLayout layout, int num_threads,
                                              absl::Span<const Op> streamed) {
  std::vector<Op> ops(own_ops.begin(), own_ops.end());
  ops.insert(ops.end(), streamed.begin(), streamed.end());
  const int64_t rows = shape.max_rows;
  const int64_t logit_rows = shape.max_logit_rows;
  const int64_t any_rows = std::max(rows, logit_rows);
  const int64_t hidden = config.hidden_size;
  BufferList buffers(layout == PackedLayout::kP16Device);
  buffers.Add("x", any_rows * hidden, 4);
  buffers.Add("normed", any_rows * hidden, 4);
  if (buffers.on_device()) {
    AddStepTables(shape, &buffers);
    if (Owns(ops, OpKind::kEmbedding)) buffers.Add("step_tokens", rows, 4);
    buffers.Add("op_flags", static_cast<int64_t>(OpsOf(config).size()), 4);
  }
  if (Owns(ops, OpKind::kAttention)) {
    (config.HasLatentAttention() ? AddLatentAttention : AddAttention)(config, shape, num_threads,
                                                                      &buffers);
  }
  if (const int64_t columns = GateColumns(config, ops); columns > 0) {
    buffers.Add("gate", rows * columns, 4);
    buffers.Add("up", rows * columns, 4);
  }
  AddExpertParts(config, ops, !streamed.empty(), rows, &buffers);
  if (!streamed.empty()) buffers.Add("stream", 2 * shape.stream_bytes, 1);
  if (const int64_t panels = GatePanels(config, ops); panels > 0 && !buffers.on_device()) {
    buffers.Add("block_counts", panels, 4);
  }
  if (const int64_t k = LongestProduct(config, ops); k > 0) {
    buffers.AddActivations(kProductActivations, any_rows, k);
  }
  if (std::any_of(ops.begin(), ops.end(), &IsProduct)) {
    buffers.AddActivations(kNormActivations, any_rows, hidden);
  }
  if (layout == PackedLayout::kInPlace) {
    buffers.Add("panels", num_threads * InPlaceScratchBytes(LongestRow(config, ops)), 1);
  }
  if (Owns(ops, OpKind::kNorm) || Owns(ops, OpKind::kLmHead)) {
    buffers.Add("logit_rows", logit_rows * hidden, 4);
  }
  AddLmHead(config, ops, logit_rows, num_threads, &buffers);
  return buffers.Take();
}

std::vector<WorkspaceBuffer> StagingBuffers(const ModelConfig& config, absl::Span<const Op> ops,
                                            const StepShape& shape, PackedLayout layout,
                                            int num_threads) {
  if (layout != PackedLayout::kP16Device) return {};
  BufferList buffers;  // of the host
  const std::vector<WorkspaceBuffer> device =
      WorkspaceBuffers(config, ops, shape, layout, num_threads);
  constexpr absl::string_view kCarried[] = {
      "x",        "step_sequences", "step_blocks",  "step_rows",    "op_flags",
      "cos_sin",  "cos_sin_local",  "slot_experts", "slot_weights", "expert_begin",
      "partials", "logits",         "best_tokens",  "step_tokens"};
  for (const WorkspaceBuffer& buffer : device) {
    const bool carried =
        std::find(std::begin(kCarried), std::end(kCarried), buffer.name) != std::end(kCarried);
    if (carried) buffers.Add(buffer.name, buffer.bytes, 1);
    if (absl::string_view(buffer.name) == "partials") buffers.Add("partial_rows", 1, 4);
  }
  if (const int64_t floats = GatheredFloats(config, ops, shape); floats > 0) {
    buffers.Add("gather", floats, 4);
  }
  for (const Op& op : ops) {
    if (op.kind != OpKind::kLmHead || op.rows.member > 0) continue;
    buffers.Add("probs", int64_t{num_threads} * config.vocab_size, 4);
    buffers.Add("ids", int64_t{num_threads} * config.vocab_size, 4);
  }
  return buffers.Take();
}

bool HeadIsEmbedding(const ModelConfig& config, absl::Span<const Op> ops) {
  return config.tie_word_embeddings && Owns(ops, OpKind::kEmbedding) && Owns(ops, OpKind::kLmHead);
}

absl::StatusOr<WorkerMemory> PlanWorkerMemory(const ModelConfig& config, const GgufFile& file,
                                              absl::Span<const Op> ops, const StepShape& shape,
                                              PackedLayout layout, int num_threads,
                                              int64_t communication_bytes) {
  DT_ASSIGN_OR_RETURN(const std::vector<WeightSlot> slots,
                      LayOutWeights(config, file, ops, layout));
  WorkerMemory memory;
  for (const WeightSlot& slot : slots) {
    memory.weights_packed += slot.bytes;
    if (slot.op.kind == OpKind::kLmHead && HeadIsEmbedding(config, ops)) continue;
    memory.weights_stored += slot.stored_bytes;
    if (slot.in_place) memory.weights_mapped += slot.stored_bytes;
  }
  PlanStepMemory(config, ops, shape, layout, num_threads, &memory);
  memory.communication = communication_bytes;
  memory.runtime = RuntimeBytes(num_threads) + FrameBytes(shape);
  return memory;
}

void PlanStepMemory(const ModelConfig& config, absl::Span<const Op> ops, const StepShape& shape,
                    PackedLayout layout, int num_threads, WorkerMemory* memory,
                    absl::Span<const Op> streamed) {
  memory->kv = KvBytes(config, ops, shape);
  memory->workspace = 0;
  for (const WorkspaceBuffer& buffer :
       WorkspaceBuffers(config, ops, shape, layout, num_threads, streamed)) {
    memory->workspace += buffer.bytes;
  }
  memory->staging = 0;
  for (const WorkspaceBuffer& buffer : StagingBuffers(config, ops, shape, layout, num_threads)) {
    memory->staging += buffer.bytes;
  }
}

}  // namespace dovetail::model
