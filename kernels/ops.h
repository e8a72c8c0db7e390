// The argument structs of every kernel: plain data, shapes in comments, no member functions.
//
// A kernel is a "slice function": it computes the part [begin, end) of its natural parallel unit
// (rows, panels or tasks, named at each struct), so the caller decides how threads share a phase
// and a kernel never synchronises. Each output element is computed by exactly one slice, by a
// sequence of operations that depends only on its own inputs (docs/numerics.md): results do not
// depend on how units are cut.
//
// Kernels run on facts already proven: shapes are checked when a plan is bound. They read only what
// their arguments name and allocate nothing. All f32 unless said otherwise; strides in elements.
#ifndef DOVETAIL_KERNELS_OPS_H_
#define DOVETAIL_KERNELS_OPS_H_

#include <cstdint>

#include "base/kv_cache.h"
#include "base/weight_type.h"

namespace dovetail::kernels {

// y[r, i] = x[r, i] * inv_r * weight[i],  inv_r = 1 / sqrt(mean_i(x[r, i]^2) + eps). Unit: rows.
// x and y may be the same buffer. accumulate: y[r, i] += that, one f32 add.
struct RmsNormArgs {
  const float* x;  // [rows, cols]
  int64_t x_stride;
  const float* weight;  // [cols]
  float* y;             // [rows, cols]
  int64_t y_stride;
  int32_t cols;
  float eps;
  bool accumulate;
};

// The activations of a product, in the forms that weight types ask for. `f32` always; the quantised
// form for one block size (16, 32 or 256): q = RNE(x * 127/amax), d = amax/127, per block.
struct Activations {
  const float* f32;  // [rows, cols]
  int64_t f32_stride;
  int8_t* q;         // [rows, cols] (cols a multiple of block), or null
  int64_t q_stride;  // bytes
  float* d;          // [rows, cols / block]
  int64_t d_stride;
  int16_t* bsum;  // [rows, cols / 16]: sums of 16 consecutive q
  int64_t bsum_stride;
  int32_t cols;
  int32_t block;  // 16, 32, 256, or 0: only f32
};

// Fills q, d and bsum from f32. Unit: rows. A non-finite input gives d = NaN for its block, which
// reaches every product made from it, so that check_finite finds it later.
struct QuantizeArgs {
  Activations x;
};

// y[r, n] (+)= scale * sum_k w[n, k] * x[r, k] + bias[n]. Unit: panels of kPanelRows weight rows;
// all activation rows.
struct MatmulArgs {
  const uint8_t* w;  // [n, k] as packed by this table's pack(), 64-byte aligned
  WeightType type;
  int32_t n;  // weight rows (output columns); panels = ceil(n / kPanelRows)
  int32_t k;
  Activations x;  // x.block is the activation block of `type`; x.cols == k
  int32_t rows;   // activation rows
  float* y;       // [rows, n]
  int64_t y_stride;
  bool accumulate;     // y = y + product: one f32 add after the whole sum, its scale and its bias
  const float* bias;   // [n], one f32 add after the whole sum and its scale; null: none
  float scale = 1.0f;  // of the whole matrix: one f32 multiplication after the whole sum
};

// y[r, i] = act(gate[r, i]) * up[r, i]. Unit: rows. y may be gate. With g = gate, u = up:
//   silu_mul    g / (1 + exp(-g)) * u
//   gelu_mul    g / (1 + exp(-t)) * u,  t = fma(c1, g * g, c0) * g,  c0 = 2 sqrt(2 / pi),
//               c1 = 0.044715 c0: GELU's tanh form, as tanh(t / 2) = 2 / (1 + exp(-t)) - 1
//   swiglu_oai  g' / (1 + exp(-1.702 g')) * (u' + 1),  g' = min(g, 7), u' = u clamped to [-7, 7]
struct GatedArgs {
  const float* gate;  // [rows, cols]
  const float* up;    // [rows, cols]
  int64_t in_stride;  // of both
  float* y;
  int64_t y_stride;
  int32_t cols;
};

// Rotates q and k in place: for each head the pairs of RopeLayout (interleaved or halves), with
// c = cos_sin[r, i], s = cos_sin[r, rope_dim/2 + i]:
//   x0' = fma(x0, c, -(x1 * s)),  x1' = fma(x0, s, x1 * c).   Unit: rows.
struct RopeArgs {
  float* x;  // [rows, num_heads, head_dim] at x_stride per row
  int64_t x_stride;
  const float* cos_sin;  // [rows, rope_dim]: rope_dim/2 cosines, then rope_dim/2 sines
  int32_t num_heads;
  int32_t head_dim;
  int32_t rope_dim;
  bool interleaved;
};

// The KV cache of one attention layer. A block is block_bytes in parts:
//   kHeads    of each kv_head its keys [key_dim][kKvBlockTokens], then of each kv_head its values
//             [kKvBlockTokens][value_dim]
//   kLatent   one, [kKvBlockTokens][key_dim]
// in KvType elements (f16, bf16: RNE). kQ8_0: after the elements of a part its scales: f16
// [ceil(dim / 32)][kKvBlockTokens] of keys of kHeads, else [kKvBlockTokens][ceil(dim / 32)]. An
// element's value is f32(scale) * q, which is exact; when it is stored, scale = f16(amax / 127) and
// q = RNE(x * (1 / f32(scale))), clamped to +-127, or 0 with scale 0.
//
// With num_blocks 0 the parts of a block follow each other (kernels for GPUs want that). Otherwise
// it is the number of blocks, and all blocks of a part follow each other: a head's keys of tokens
// whose blocks are neighbours are one stretch of memory then, which a processor reads faster.
struct KvCacheView {
  uint8_t* data;
  int64_t block_bytes;
  KvType type;
  KvShape shape;
  int64_t num_blocks = 0;
};

// One sequence of a step: rows [row_begin, row_begin + num_rows) are its tokens at positions
// [position, position + num_rows); its block table has ceil((position + num_rows) / 32) entries.
struct SequenceRows {
  int32_t row_begin;
  int32_t num_rows;
  int32_t position;
  const int32_t* blocks;
};

// Stores k and v of the step's rows. Unit: rows of the step. Returns whether all that was stored is
// finite: a key of minus infinity could otherwise hide in a probability of 0.
struct KvAppendArgs {
  KvCacheView kv;
  const float* k;  // [rows, num_heads, key_dim] of kv.shape
  int64_t k_stride;
  const float* v;  // [rows, num_heads, value_dim]; not read with kLatent
  int64_t v_stride;
  const SequenceRows* sequences;  // in row order, covering all rows
  int32_t num_sequences;
};

// Causal attention of the step's rows over their sequences' caches (the step's own keys are already
// appended). Per row and head: splits of kKvSplitTokens keys by absolute position; in a split
//   score_j = attention_scale * (sequential fma over d of q_d * k_jd), m = max, p_j = exp(score_j -
//   m), l = sum p_j in 16 lanes by j mod 16 then the halving tree, o_d = sequential fma over j of
//   p_j * v_jd;
// splits are merged left to right (docs/numerics.md), out = o / l. Keys outside the window are left
// out, the splits stay where they are; lanes of l are by absolute position. A sink is merged last,
// as a split with m = sink, l = 1 and o = 0.
// Unit: tasks = rows * groups, groups = num_heads / heads_per_task: task t is row t / groups and
// the heads_per_task heads of group t % groups, which read the same KV head.
//
// Threads that are more than the tasks share contexts, in two phases with the same bits:
// attention_parts makes splits [begin, end) of one task, numbered by position / kKvSplitTokens
// (those that the row does not see are passed over); attention_merge merges the splits of tasks.
struct AttentionArgs {
  KvCacheView kv;
  const float* q;  // [rows, num_heads, key_dim], from row `first_row` on
  int64_t q_stride;
  float* out;  // [rows, num_heads, value_dim], the same
  int64_t out_stride;
  const SequenceRows* sequences;
  int32_t num_sequences;
  int32_t num_heads;       // a multiple of kv.shape.num_heads
  int32_t heads_per_task;  // divides num_heads / kv.shape.num_heads
  float scale;
  float* scratch;      // AttentionScratchFloats(), of this slice alone
  int32_t window;      // a row sees its own key and the window - 1 before it; 0: all before it
  const float* sinks;  // [num_heads]: a score without a value; null: none
  int64_t first_row;   // of q and out; tasks count from row 0 of the step
  // [tasks from first_row on, part_splits, heads_per_task, AttentionPartFloats()] of the two phases
  float* parts = nullptr;
  int64_t part_splits = 0;
};

// Rows of an embedding table, dequantised: y[r] = table[tokens[r]]. Unit: rows.
struct EmbeddingArgs {
  const uint8_t* table;  // raw GGUF rows, or a packed matrix
  WeightType type;
  int64_t row_bytes;      // of raw rows
  const int32_t* tokens;  // [rows]
  float* y;               // [rows, cols]
  int64_t y_stride;
  int32_t cols;
  float scale = 1.0f;  // y is multiplied by it
};

// x[r, i] += acc,  acc = 0, then for slot = 0, 1, ...: acc = fma(weights[r, slot],
// y[sources[r, slot], i], acc). Unit: rows.
struct CombineArgs {
  const float* y;  // [.., cols]
  int64_t y_stride;
  const int32_t* sources;  // [rows, slots]: rows of y
  const float* weights;    // [rows, slots]
  int32_t slots;
  float* x;  // [rows, cols]
  int64_t x_stride;
  int32_t cols;
};

// p[i] = exp((x[i] - max) * inv_temperature), returns their sum (32 lanes by i mod 32, halving
// tree).
struct SoftmaxArgs {
  const float* x;  // [cols]
  float* p;        // [cols], may be x
  int32_t cols;
  float inv_temperature;
};

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_OPS_H_
