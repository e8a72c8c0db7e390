// Attention: x += o_proj(attention(rope(qkv(norm(x))))), one layer with its part of the KV cache.
// Some models normalise q and k before the rotation, and what o_proj makes before it is added.
// Where workers share its rows, each has its KV heads, with the heads that read them, and makes its
// columns of x.
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
  // Of each head or of the whole row, as their columns say; without weight: none.
  RmsNorm q_norm;
  RmsNorm k_norm;
  RmsNorm post_norm;             // without weight: none
  const float* sinks = nullptr;  // [num_heads], or none
};

struct AttentionShape {  // of this worker's heads
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t rope_dim = 0;
  bool rope_interleaved = true;
  float scale = 0;
  int32_t window = 0;       // 0: all keys
  bool local_rope = false;  // the angles of ws.cos_sin_local
};

class Attention : public Layer {
 public:
  // `inner` and `outer`: the columns that the members of its segment make, if it has any.
  Attention(const AttentionWeights& weights, const AttentionShape& shape,
            const kernels::KvCacheView& kv, MemberColumns inner = {}, MemberColumns outer = {});
  // Expects the step's rotary angles (StepOps::FillRopeAngles).
  void Forward(StepContext& step) const override;

 private:
  void RotateAndStore(StepContext& step) const;
  void Attend(StepContext& step) const;
  // What attention made, of all heads, as o_proj reads it.
  LinearInput Attended(StepContext& step) const;

  AttentionWeights w_;
  AttentionShape shape_;
  kernels::KvCacheView kv_;
  MemberColumns inner_, outer_;
  bool whole_blocks_ = true;  // no member's heads end within an activation block of o_proj
  ActivationForms qkv_forms_;
  ActivationForms o_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_ATTENTION_H_
