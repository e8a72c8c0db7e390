#include "worker/layers/attention.h"

#include <algorithm>
#include <atomic>

namespace dovetail::worker {
namespace {

// Rows that a thread takes at a time. Later rows attend to more keys, so equal shares are not equal
// work: threads take small ones until none is left.
constexpr int64_t kMaxShareRows = 16;
constexpr int64_t kSharesPerThread = 4;

}  // namespace

Attention::Attention(const AttentionWeights& weights, const AttentionShape& shape,
                     const kernels::KvCacheView& kv)
    : w_(weights), shape_(shape), kv_(kv) {
  qkv_forms_ = ActivationForms::Of({&w_.q_proj, &w_.k_proj, &w_.v_proj});
  o_forms_ = ActivationForms::Of({&w_.o_proj});
}

void Attention::Forward(StepContext& step) const {
  Workspace& ws = step.ws;
  const int32_t rows = step.x_rows;
  const LinearInput normed = NormedInput(step, w_.norm, qkv_forms_);
  RunProducts(step, {{&w_.q_proj, ws.q}, {&w_.k_proj, ws.k}, {&w_.v_proj, ws.v}}, normed, rows,
              /*check_finite=*/false);
  RotateAndStore(step);
  Attend(step);
  const LinearInput attended(ws.attn, w_.o_proj.in_features, o_forms_, ws.inner_act);
  ForRows(step, rows, w_.o_proj.in_features,
          [&](int64_t begin, int64_t end) { attended.Quantize(step.kernels, begin, end); });
  if (w_.post_norm.weight == nullptr) {
    RunProducts(step, {{&w_.o_proj, step.x, /*accumulate=*/true}}, attended, rows,
                /*check_finite=*/true);
    return;
  }
  RunProducts(step, {{&w_.o_proj, ws.normed}}, attended, rows, /*check_finite=*/true);
  AddNormed(step, w_.post_norm, ws.normed);
}

// Heads, or whole rows, of q or k: [rows, cols], dense.
void Attention::NormHeads(StepContext& step, const RmsNorm& norm, float* x, int32_t cols,
                          int64_t begin, int64_t end) const {
  if (norm.weight == nullptr) return;
  const int64_t parts = cols / norm.cols;
  step.kernels.rms_norm(norm.Args(x, x), begin * parts, end * parts);
}

void Attention::RotateAndStore(StepContext& step) const {
  Workspace& ws = step.ws;
  const int32_t q_cols = shape_.num_heads * shape_.head_dim;
  const int32_t kv_cols = shape_.num_kv_heads * shape_.head_dim;
  kernels::RopeArgs rope_q = {.x = ws.q,
                              .x_stride = q_cols,
                              .cos_sin = shape_.local_rope ? ws.cos_sin_local : ws.cos_sin,
                              .num_heads = shape_.num_heads,
                              .head_dim = shape_.head_dim,
                              .rope_dim = shape_.rope_dim,
                              .interleaved = shape_.rope_interleaved};
  kernels::RopeArgs rope_k = rope_q;
  rope_k.x = ws.k;
  rope_k.x_stride = kv_cols;
  rope_k.num_heads = shape_.num_kv_heads;
  const kernels::KvAppendArgs append = {
      .kv = kv_,
      .k = ws.k,
      .k_stride = kv_cols,
      .v = ws.v,
      .v_stride = kv_cols,
      .sequences = step.sequences.data(),
      .num_sequences = static_cast<int32_t>(step.sequences.size())};
  ForRows(step, step.rows, q_cols + 2 * kv_cols, [&](int64_t begin, int64_t end) {
    NormHeads(step, w_.q_norm, ws.q, q_cols, begin, end);
    NormHeads(step, w_.k_norm, ws.k, kv_cols, begin, end);
    step.kernels.rope(rope_q, begin, end);
    step.kernels.rope(rope_k, begin, end);
    step.kernels.kv_append(append, begin, end);
  });
}

void Attention::Attend(StepContext& step) const {
  Workspace& ws = step.ws;
  const int32_t q_cols = shape_.num_heads * shape_.head_dim;
  const kernels::AttentionArgs args = {.kv = kv_,
                                       .q = ws.q,
                                       .q_stride = q_cols,
                                       .out = ws.attn,
                                       .out_stride = q_cols,
                                       .sequences = step.sequences.data(),
                                       .num_sequences = static_cast<int32_t>(step.sequences.size()),
                                       .num_heads = shape_.num_heads,
                                       .scale = shape_.scale,
                                       .scratch = nullptr,
                                       .window = shape_.window,
                                       .sinks = w_.sinks};
  const int64_t tasks = int64_t{step.rows} * shape_.num_kv_heads;
  const int num_threads = step.pool.num_threads();
  const int64_t share_rows =
      std::clamp<int64_t>(step.rows / (kSharesPerThread * num_threads), 1, kMaxShareRows);
  // Few rows: a task is one head of one row, and the heads are what there is to share.
  const int64_t share = step.rows < 2 * num_threads ? 1 : share_rows * shape_.num_kv_heads;
  const int64_t num_shares = (tasks + share - 1) / share;
  std::atomic<int64_t> next{0};
  step.pool.Run([&](int idx, int) {
    kernels::AttentionArgs mine = args;
    mine.scratch = ws.attn_scratch + idx * ws.attn_scratch_floats;
    for (;;) {
      const int64_t taken = next.fetch_add(1, std::memory_order_relaxed);
      if (taken >= num_shares) break;
      const int64_t begin = (num_shares - 1 - taken) * share;  // the long ones first
      step.kernels.attention(mine, begin, std::min(begin + share, tasks));
    }
  });
}

void FillRopeAngles(StepContext& step, absl::Span<const float> inv_freq, float factor,
                    float* cos_sin) {
  const int32_t half = static_cast<int32_t>(inv_freq.size());
  ForRows(step, step.rows, 16 * half, [&](int64_t begin, int64_t end) {
    for (const kernels::SequenceRows& sequence : step.sequences) {
      const int64_t first = std::max<int64_t>(begin, sequence.row_begin);
      const int64_t last = std::min<int64_t>(end, sequence.row_begin + sequence.num_rows);
      for (int64_t row = first; row < last; ++row) {
        const int32_t position = sequence.position + static_cast<int32_t>(row - sequence.row_begin);
        kernels::RopeAngles(position, inv_freq.data(), half, factor, cos_sin + row * 2 * half);
      }
    }
  });
}

}  // namespace dovetail::worker
