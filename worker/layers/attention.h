// Attention: x += o_proj(attention(rope(qkv(norm(x))))), one layer with its part of the KV cache.
#ifndef DOVETAIL_WORKER_LAYERS_ATTENTION_H_
#define DOVETAIL_WORKER_LAYERS_ATTENTION_H_

#include <cstdint>

#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

struct AttentionWeights {
  RmsNorm norm;
  Linear q_proj;
  Linear k_proj;
  Linear v_proj;
  Linear o_proj;
};

struct AttentionShape {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t rope_dim = 0;
  bool rope_interleaved = true;
  float scale = 0;
};

class Attention : public Layer {
 public:
  Attention(const AttentionWeights& weights, const AttentionShape& shape,
            const kernels::KvCacheView& kv);
  // Expects the step's rotary angles in ws.cos_sin (FillRopeAngles).
  void Forward(StepContext& step) const override;

 private:
  void RotateAndStore(StepContext& step) const;
  void Attend(StepContext& step) const;

  AttentionWeights w_;
  AttentionShape shape_;
  kernels::KvCacheView kv_;
  ActivationForms qkv_forms_;
  ActivationForms o_forms_;
};

// cos_sin of the step's rows, once per visit of a segment: all layers share them.
void FillRopeAngles(StepContext& step, absl::Span<const float> inv_freq, float factor);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_ATTENTION_H_
