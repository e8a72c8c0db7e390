#include "worker/layers/attention.h"

#include <algorithm>
#include <utility>

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

Attention::Attention(const AttentionWeights& weights, const AttentionShape& shape,
                     const kernels::KvCacheView& kv, MemberColumns inner, MemberColumns outer)
    : w_(weights), shape_(shape), kv_(kv), inner_(std::move(inner)), outer_(std::move(outer)) {
  const int32_t block = std::max(w_.o_proj.activation_block(), 1);
  for (const Range& part : inner_.parts) whole_blocks_ &= part.end % block == 0;
  qkv_forms_ = ActivationForms::Of({&w_.q_proj, &w_.k_proj, &w_.v_proj});
  o_forms_ = ActivationForms::Of({&w_.o_proj});
}

void Attention::Forward(StepContext& step) const {
  const Workspace& ws = step.ws;
  const int32_t rows = step.x_rows;
  const LinearInput normed = NormedInput(step, w_.norm, qkv_forms_);
  step.ops.Products(step, {{&w_.q_proj, ws.q}, {&w_.k_proj, ws.k}, {&w_.v_proj, ws.v}}, normed,
                    rows,
                    /*check_finite=*/false);
  RotateAndStore(step);
  Attend(step);
  const LinearInput attended = Attended(step);
  const int64_t hidden = w_.norm.cols;
  const bool accumulate = w_.post_norm.weight == nullptr;
  float* y = accumulate ? step.x : ws.normed;
  step.ops.Products(step, {{&w_.o_proj, y + outer_.begin(), accumulate, hidden}}, attended, rows,
                    /*check_finite=*/true);
  GatherColumns(step, y, hidden, rows, outer_);
  if (!accumulate) step.ops.AddNormed(step, w_.post_norm, y);
}

LinearInput Attention::Attended(StepContext& step) const {
  float* attn = step.ws.attn;
  const int32_t cols = w_.o_proj.in_features;
  const LinearInput attended(attn, cols, o_forms_, step.ws.inner_act);
  if (whole_blocks_) {
    const int64_t first = inner_.begin();
    step.ops.Quantize(step, attended, step.x_rows,
                      {first, first + shape_.num_heads * shape_.head_dim});
    attended.GatherForms(step, attn, step.x_rows, inner_);
  } else {
    GatherColumns(step, attn, cols, step.x_rows, inner_);
    step.ops.Quantize(step, attended, step.x_rows, {0, cols});
  }
  return attended;
}

void Attention::RotateAndStore(StepContext& step) const {
  const Workspace& ws = step.ws;
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
      .kv = kv_, .k = ws.k, .k_stride = kv_cols, .v = ws.v, .v_stride = kv_cols};
  step.ops.RotateAndStore(step,
                          {.q_norm = w_.q_norm.Args(ws.q, ws.q),
                           .k_norm = w_.k_norm.Args(ws.k, ws.k),
                           .q_parts = w_.q_norm.weight == nullptr ? 1 : q_cols / w_.q_norm.cols,
                           .k_parts = w_.k_norm.weight == nullptr ? 1 : kv_cols / w_.k_norm.cols,
                           .rope_q = rope_q,
                           .rope_k = rope_k,
                           .append = append});
}

void Attention::Attend(StepContext& step) const {
  const int32_t q_cols = shape_.num_heads * shape_.head_dim;
  step.ops.Attend(step,
                  {.kv = kv_,
                   .q = step.ws.q,
                   .q_stride = q_cols,
                   .out = step.ws.attn + inner_.begin(),
                   .out_stride = w_.o_proj.in_features,
                   .num_heads = shape_.num_heads,
                   .scale = shape_.scale,
                   .window = shape_.window,
                   .sinks = w_.sinks},
                  0, step.rows);
}

}  // namespace dovetail::worker
