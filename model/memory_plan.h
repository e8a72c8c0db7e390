// MemoryPlan: the bytes that a worker will use, computed from headers alone.
//
// The coordinator refuses with it what does not fit; the worker sizes its segments and its
// workspace with the same functions, so that plan and allocation cannot drift apart. Pure
// functions.
#ifndef DOVETAIL_MODEL_MEMORY_PLAN_H_
#define DOVETAIL_MODEL_MEMORY_PLAN_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/packed_layout.h"
#include "base/route.h"
#include "base/step_shape.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::model {

// Where one weight lies: in a worker's weight segment, or in the file. Offsets are multiples of 64.
// A matrix that has two uses (tied embeddings) has a slot for each.
struct WeightSlot {
  Op op;
  WeightSpec spec;
  WeightType type = WeightType::kF32;  // that it is computed with
  int64_t offset = 0;
  int64_t bytes = 0;  // as packed (vectors: f32); 0: it is read in place, or in the head
  // In the tensor's data: where its rows begin, and from one expert, or head, to the next.
  int64_t source_offset = 0;
  int64_t source_stride = 0;
  int64_t stored_bytes = 0;  // as the file has it
  bool in_place = false;
  bool in_head = false;  // an embedding whose rows are the head's: `offset` is that of the head

  // From one expert, or head, to the next where it is read.
  int64_t stride() const {
    return in_place ? source_stride : bytes / std::max<int64_t>(1, spec.experts);
  }
};

// The type of a weight of `type` whose rows become columns: blocks of rows cannot be turned around,
// so what is quantised becomes f32, exactly.
WeightType TransposedType(WeightType type);

// The slots of a worker that owns `ops`, in op order. No weight is in its memory twice: of an
// embedding and a head with the same rows (tied embeddings) there is the head, as products read it,
// unless other workers have some of its rows; what is a copy (WeightSpec::is_copy) is there once,
// in the slot of the first op. With PackedLayout::kInPlace matrices stay in the file, but for
// transposed ones, which it does not have; with kP16Device an embedding of its own does. Of an op
// whose rows are shared (Op::rows) they are this worker's rows.
absl::StatusOr<std::vector<WeightSlot>> LayOutWeights(const ModelConfig& config,
                                                      const GgufFile& file,
                                                      absl::Span<const Op> ops,
                                                      PackedLayout layout);

// Of one attention layer.
int64_t KvBytesPerBlockPerLayer(const ModelConfig& config, KvType type);
// Of all attention layers among `ops`, each with its own type.
int64_t KvBytes(const ModelConfig& config, absl::Span<const Op> ops, const StepShape& shape);

// Floats of scratch that one thread's attention uses. The kernels have the same formula
// (kernels/kv_layout.h), which model/ must not include; the worker compares the two at load.
int64_t AttentionScratchFloats(const KvShape& shape);
int64_t AttentionPartFloats(const KvShape& shape);

// Rows whose latent attention is computed at once, all heads: what it needs besides is large.
inline constexpr int32_t kLatentTileRows = 64;

// The shared-memory ring through which a worker receives frames.
inline constexpr int64_t kRingBytes = int64_t{4} << 20;

// Private memory of a worker process besides the model: heap, gRPC, threads' stacks. Measured
// (docs/plan.md); code is not counted, which all processes share with the file on disk.
inline int64_t RuntimeBytes(int num_threads) {
  return (int64_t{6} << 20) + int64_t{num_threads} * (int64_t{128} << 10);
}

// What a worker reads once, before it registers, to measure its bandwidth; freed before it loads.
inline constexpr int64_t kMeasureBytes = int64_t{64} << 20;

// Bytes of the largest frame without its residual stream and of the largest output without logits,
// which a worker keeps outside of its workspace. (transport/step_frame.h has the structs, which
// model/ must not include; a test compares.)
int64_t FrameBytes(const StepShape& shape);
// What frames of this model carry for each row.
RowShape RowShapeOf(const ModelConfig& config);

// The named buffers of a worker's step workspace; the worker carves them out of one allocation.
// Only what the owned ops need is there. R = max_rows, L = max_logit_rows, A = max(R, L), K = the
// longest weight row of the owned products (experts aside), padded to 256:
//   x [A, hidden]      normed [A, hidden]     always; every owner of an op passes or makes x
//   q, attn [R, heads * head_dim]   k, v [R, kv_heads * head_dim]   cos_sin [R, rope_dim]
//   attn_scratch [num_threads, AttentionScratchFloats()]            with attention
//   attn_parts [heads, splits of the context, AttentionPartFloats()]    the same, of several
//   threads cos_sin_local [R, rope_dim]       where layers with a window have frequencies of their
//   own with latent attention, of H heads, C latent and D rotated dimensions, T = min(R, 64):
//     q [R, H * head_dim]  q_lora [R, q_lora_rank]  k [R, C + D]  attn [R, H * v_head_dim]
//     cos_sin, attn_scratch, attn_parts as above;  q_latent [T, H * (C + D)]  latent [T, H * C]
//     head_*, head2_*, head3_* like act_* for [T * H, the longer of C and a head's key]
//   gate, up [R, the widest of dense layers and shared experts]     with mlp or shared experts
//   act_q8 int8 [A, K]   act_d [A, K / 32]   act_bsum int16 [A, K / 16]     with any product;
//   act2_*, act3_*     the same again, for weights of the other activation block sizes; act3_d is
//                      [A, K / 16]
//   normed_*, normed2_*, normed3_*    the same for K = hidden, padded to 256: what norms make,
//                      which is read while threads that are ahead already write act_*
//   slot_experts int32 [R, U]   slot_weights [R, S]   with any part of a layer with experts: E of
//                      them, U used by a row, S = U or, with a shared expert, U + 1
//   router [R, E]                     with a router
//   shared_gate [R]                   with shared experts
//   with experts, F wide, N of a layer at most, P = R * min(U, N):
//     slot_sources int32 [R, S]   pair_rows int32 [P]   expert_begin int32 [E + 1]
//     expert_gate, expert_up [P, F]
//     expert_in_*, _in2_*, _in3_* like act_* for [P, hidden]; expert_act_*, _act2_*, _act3_* for
//     [P, F]
//   partials [R * S, hidden]          with experts; [R, hidden] with shared experts alone: what
//                      was made for the slots, here or on the workers before; before that, the
//                      inputs of experts
//   logit_rows [L, hidden]                                          with norm or lm_head
//   panels [num_threads, InPlaceScratchBytes()]     with products that are read in place
//   logits [L, vocab]   probs, ids int32 [num_threads, vocab]       with lm_head; of those that
//                      share its rows all but the first have logits alone, [L, own rows]
// f32 unless said otherwise; sizes are multiples of 64 bytes. What else is shared has buffers as
// wide as the whole op's: what each makes of its rows is gathered there.
//
// With PackedLayout::kP16Device the buffers are the GPU's. There is no attn_scratch, block_counts,
// expert_order, probs and ids; attn_parts is always there, and besides, of N sequences with at most
// B blocks each, O ops of the model, G = P (or, with many rows, fewer) groups of pairs:
//   step_sequences [N] SequenceRows   step_blocks int32 [N, B]   step_rows int32 [L]
//   op_flags int32 [O]
//   step_tokens int32 [R] with embedding   best_tokens int32 [L] with lm_head
//   with experts: expert_groups [G] MatmulGroup   expert_num_groups int32
//                 expert_places int32 [layers with experts, E]
// `streamed`: experts of other workers that it streams (base/route.h), for which there are
//   stream [2, stream_bytes], and twice as many expert_places
struct WorkspaceBuffer {
  const char* name;  // static string
  int64_t bytes = 0;
};
std::vector<WorkspaceBuffer> WorkspaceBuffers(const ModelConfig& config, absl::Span<const Op> ops,
                                              const StepShape& shape, PackedLayout layout,
                                              int num_threads, absl::Span<const Op> streamed = {});

// With PackedLayout::kP16Device: what goes to and from a GPU in a step, in the host's memory, and
// what the host draws tokens with. Named as above, besides
//   partial_rows int32    with partials: how many came with the frame
//   gather     of workers that share rows: what they bring together at once
// Empty with the other layouts.
std::vector<WorkspaceBuffer> StagingBuffers(const ModelConfig& config, absl::Span<const Op> ops,
                                            const StepShape& shape, PackedLayout layout,
                                            int num_threads);

// Rows of a group of pairs at most: those of one tile of the kernels.
inline constexpr int32_t kMostGroupRows = 64;

// What weights pass through on their way to a GPU: on the GPU, which packs them from there, and
// twice in the host's memory. Freed when all are there, before the KV cache and the workspace come.
inline constexpr int64_t kLoadDeviceBytes = int64_t{32} << 20;
inline constexpr int64_t kLoadStagingBytes = 2 * kLoadDeviceBytes;

// Whether the worker's head has rows of its embedding. What the file has of both, and what both
// read in place, counts once.
bool HeadIsEmbedding(const ModelConfig& config, absl::Span<const Op> ops);

struct WorkerMemory {
  int64_t weights_stored = 0;
  int64_t weights_packed = 0;
  // Read in place: the kernel's cache of the file, which it may drop and read again.
  int64_t weights_mapped = 0;
  int64_t kv = 0;
  int64_t workspace = 0;
  int64_t staging = 0;        // of a GPU worker: of the host
  int64_t communication = 0;  // rings that end at this worker
  int64_t runtime = 0;        // what the process needs before any model, and frames
  int64_t load_device = 0;    // of a GPU's, while weights are loaded: kLoadDeviceBytes
  int64_t total() const {
    return weights_packed + kv + workspace + staging + communication + runtime;
  }
  // At any time, in the memory that the weights are in.
  int64_t needed() const { return std::max(total(), runtime + weights_packed + load_device); }
  // Before anything is loaded bandwidth is measured. A worker has loaded when the KV cache and the
  // workspace are there as well; rings it has only when it is connected.
  int64_t peak_load() const {
    const int64_t loading = staging > 0 ? std::max(staging, kLoadStagingBytes) : 0;
    return runtime + std::max(weights_packed + std::max(kv + workspace, load_device) + loading,
                              kMeasureBytes);
  }
};
absl::StatusOr<WorkerMemory> PlanWorkerMemory(const ModelConfig& config, const GgufFile& file,
                                              absl::Span<const Op> ops, const StepShape& shape,
                                              PackedLayout layout, int num_threads,
                                              int64_t communication_bytes = kRingBytes);

// The parts of it that the shape of a step decides: KV cache and workspace.
void PlanStepMemory(const ModelConfig& config, absl::Span<const Op> ops, const StepShape& shape,
                    PackedLayout layout, int num_threads, WorkerMemory* memory,
                    absl::Span<const Op> streamed = {});

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_MEMORY_PLAN_H_
