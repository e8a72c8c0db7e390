// LatentAttention: x += o_proj(attention(..norm(x)..)), one layer of multi-head latent attention
// with its part of the KV cache.
//
// The cache holds one vector per token: the latent one, normalised, and the rotated part of the
// key. Keys and values of heads are never made. A query is taken into the space of the latent
// vector instead (q_nope * W_k), all heads attend to the same vectors, and what each gets is taken
// out of it (W_v): one form for decoding and prefill, because the two would differ in bits.
#ifndef DOVETAIL_WORKER_LAYERS_LATENT_ATTENTION_H_
#define DOVETAIL_WORKER_LAYERS_LATENT_ATTENTION_H_

#include <cstdint>

#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

struct LatentAttentionWeights {
  RmsNorm norm;
  Linear q_a_proj;  // without weight: q_proj reads the hidden state
  RmsNorm q_a_norm;
  Linear q_proj;
  Linear kv_a_proj;  // the latent vector, then the part of the key that is rotated
  RmsNorm kv_a_norm;
  ExpertLinear k_b_proj;  // of each head: [latent, nope]
  ExpertLinear v_b_proj;  // of each head: [v_head_dim, latent]
  Linear o_proj;
};

struct LatentAttentionShape {
  int32_t num_heads = 0;
  int32_t nope_dim = 0;
  int32_t rope_dim = 0;
  int32_t v_head_dim = 0;
  int32_t tile_rows = 0;  // that are attended with at once
  bool rope_interleaved = true;
  float scale = 0;
};

class LatentAttention : public Layer {
 public:
  LatentAttention(const LatentAttentionWeights& weights, const LatentAttentionShape& shape,
                  const kernels::KvCacheView& kv);
  // Expects the step's rotary angles (StepOps::FillRopeAngles).
  void Forward(StepContext& step) const override;

 private:
  int32_t head_dim() const { return shape_.nope_dim + shape_.rope_dim; }
  void ProjectIn(StepContext& step) const;
  void RotateAndStore(StepContext& step) const;
  // For rows [first, first + rows).
  void AbsorbQueries(StepContext& step, int64_t first, int32_t rows) const;
  void Attend(StepContext& step, int64_t first, int32_t rows) const;
  void ProjectValues(StepContext& step, int64_t first, int32_t rows) const;

  LatentAttentionWeights w_;
  LatentAttentionShape shape_;
  kernels::KvCacheView kv_;
  ActivationForms in_forms_;
  ActivationForms q_lora_forms_;
  ActivationForms k_b_forms_;
  ActivationForms v_b_forms_;
  ActivationForms o_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_LATENT_ATTENTION_H_
