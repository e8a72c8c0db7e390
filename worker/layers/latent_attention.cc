#include "worker/layers/latent_attention.h"

#include <algorithm>

#include "worker/layers/step_ops.h"

namespace dovetail::worker {

LatentAttention::LatentAttention(const LatentAttentionWeights& weights,
                                 const LatentAttentionShape& shape, const kernels::KvCacheView& kv)
    : w_(weights), shape_(shape), kv_(kv) {
  const bool low_rank = w_.q_a_proj.weight != nullptr;
  in_forms_ = ActivationForms::Of({low_rank ? &w_.q_a_proj : &w_.q_proj, &w_.kv_a_proj});
  q_lora_forms_ = ActivationForms::Of({&w_.q_proj});
  k_b_forms_ = ActivationForms::Of({&w_.k_b_proj.first});
  v_b_forms_ = ActivationForms::Of({&w_.v_b_proj.first});
  o_forms_ = ActivationForms::Of({&w_.o_proj});
}

void LatentAttention::Forward(StepContext& step) const {
  ProjectIn(step);
  RotateAndStore(step);
  for (int64_t first = 0; first < step.rows; first += shape_.tile_rows) {
    const auto rows = static_cast<int32_t>(std::min<int64_t>(shape_.tile_rows, step.rows - first));
    AbsorbQueries(step, first, rows);
    Attend(step, first, rows);
    ProjectValues(step, first, rows);
  }
  const LinearInput attended(step.ws.attn, w_.o_proj.in_features, o_forms_, step.ws.inner_act);
  step.ops.Quantize(step, attended, step.rows, {0, w_.o_proj.in_features});
  step.ops.Products(step, {{&w_.o_proj, step.x, /*accumulate=*/true}}, attended, step.rows,
                    /*check_finite=*/true);
}

// q and k, from the hidden state.
void LatentAttention::ProjectIn(StepContext& step) const {
  const Workspace& ws = step.ws;
  const LinearInput normed = NormedInput(step, w_.norm, in_forms_);
  if (w_.q_a_proj.weight == nullptr) {
    step.ops.Products(step, {{&w_.q_proj, ws.q}, {&w_.kv_a_proj, ws.k}}, normed, step.rows,
                      /*check_finite=*/false);
    return;
  }
  step.ops.Products(step, {{&w_.q_a_proj, ws.q_lora}, {&w_.kv_a_proj, ws.k}}, normed, step.rows,
                    /*check_finite=*/false);
  const int32_t rank = w_.q_a_proj.out_features;
  const LinearInput q_lora(ws.q_lora, rank, q_lora_forms_, ws.inner_act);
  step.ops.NormAndQuantize(step, w_.q_a_norm, ws.q_lora, ws.q_lora, q_lora, step.rows);
  step.ops.Products(step, {{&w_.q_proj, ws.q}}, q_lora, step.rows, /*check_finite=*/false);
}

void LatentAttention::RotateAndStore(StepContext& step) const {
  const Workspace& ws = step.ws;
  const int32_t q_cols = shape_.num_heads * head_dim();
  const int32_t latent = kv_.shape.value_dim, kv_cols = kv_.shape.key_dim;
  kernels::RmsNormArgs norm = w_.kv_a_norm.Args(ws.k, ws.k);
  norm.x_stride = norm.y_stride = kv_cols;
  const kernels::RopeArgs rope_q = {.x = ws.q + shape_.nope_dim,
                                    .x_stride = q_cols,
                                    .cos_sin = ws.cos_sin,
                                    .num_heads = shape_.num_heads,
                                    .head_dim = head_dim(),
                                    .rope_dim = shape_.rope_dim,
                                    .interleaved = shape_.rope_interleaved};
  kernels::RopeArgs rope_k = rope_q;
  rope_k.x = ws.k + latent;
  rope_k.x_stride = kv_cols;
  rope_k.num_heads = 1;
  const kernels::KvAppendArgs append = {.kv = kv_, .k = ws.k, .k_stride = kv_cols};
  step.ops.RotateAndStore(
      step, {.q_norm = {}, .k_norm = norm, .rope_q = rope_q, .rope_k = rope_k, .append = append});
}

// q_latent[row, head] = W_k[head] * the part that is not rotated, then the part that is.
void LatentAttention::AbsorbQueries(StepContext& step, int64_t first, int32_t rows) const {
  const Workspace& ws = step.ws;
  const int32_t heads = shape_.num_heads, latent = kv_.shape.value_dim;
  const int64_t key_dim = kv_.shape.key_dim;
  const float* q = ws.q + first * heads * head_dim();
  const LinearInput nope(q, shape_.nope_dim, k_b_forms_, ws.head_act, head_dim());
  step.ops.SplitHeads(step,
                      {.quantized = nope,
                       .from = q + shape_.nope_dim,
                       .from_stride = head_dim(),
                       .to = ws.q_latent + latent,
                       .to_stride = key_dim,
                       .cols = shape_.rope_dim},
                      int64_t{rows} * heads);
  step.ops.HeadProducts(
      step, {.linear = &w_.k_b_proj, .heads = heads, .y = ws.q_latent, .y_stride = key_dim}, nope,
      rows);
}

void LatentAttention::Attend(StepContext& step, int64_t first, int32_t rows) const {
  step.ops.Attend(step,
                  {.kv = kv_,
                   .q = step.ws.q_latent,
                   .q_stride = int64_t{shape_.num_heads} * kv_.shape.key_dim,
                   .out = step.ws.latent,
                   .out_stride = int64_t{shape_.num_heads} * kv_.shape.value_dim,
                   .num_heads = shape_.num_heads,
                   .scale = shape_.scale},
                  first, first + rows);
}

void LatentAttention::ProjectValues(StepContext& step, int64_t first, int32_t rows) const {
  const int32_t heads = shape_.num_heads, latent = kv_.shape.value_dim;
  const LinearInput attended(step.ws.latent, latent, v_b_forms_, step.ws.head_act);
  step.ops.Quantize(step, attended, int64_t{rows} * heads, {0, latent});
  float* y = step.ws.attn + first * heads * shape_.v_head_dim;
  step.ops.HeadProducts(
      step, {.linear = &w_.v_b_proj, .heads = heads, .y = y, .y_stride = shape_.v_head_dim},
      attended, rows);
}

}  // namespace dovetail::worker
