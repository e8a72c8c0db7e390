// Linear: a weight matrix as the kernels read it; LinearInput: what it is multiplied with; Product:
// the two, and where the result goes. Plain data.
//
// Different weight types read activations in different forms (docs/numerics.md): f32, or int8 in
// blocks of 16, 32 or 256. A LinearInput holds the forms that its consumers ask for, each quantised
// once.
#ifndef DOVETAIL_WORKER_LAYERS_LINEAR_H_
#define DOVETAIL_WORKER_LAYERS_LINEAR_H_

#include <cstdint>

#include "absl/types/span.h"
#include "base/weight_type.h"
#include "kernels/ops.h"
#include "model/model_config.h"
#include "worker/layers/layer.h"

namespace dovetail::worker {

struct Linear {
  const uint8_t* weight = nullptr;
  WeightType type = WeightType::kF32;
  int32_t out_features = 0;
  int32_t in_features = 0;
  bool in_place = false;        // rows as the file has them, not as the kernels' pack() makes them
  const float* bias = nullptr;  // [out_features], or none
  float scale = 1.0f;           // of the product, before the bias

  int64_t panels() const;
  int32_t activation_block() const;  // 16, 32, 256, or 0: reads f32
  // Panels of what this matrix reads that make one activation block of it.
  int64_t panels_per_input_block() const;
};

// The same matrix of all experts of a layer, one after another.
struct ExpertLinear {
  Linear first;
  int64_t stride = 0;             // bytes from one to the next
  int64_t bias_stride = 0;        // from one's bias to the next
  const float* scales = nullptr;  // of each, or none but first.scale
  Linear At(int32_t expert) const;
};

// The forms that a set of consumers reads.
struct ActivationForms {
  bool f32 = false;
  bool block32 = false;
  bool block256 = false;
  bool block16 = false;  // NVFP4

  bool Has(int32_t block) const { return block == 16 ? block16 : block == 32 ? block32 : block256; }
  static ActivationForms Of(absl::Span<const Linear* const> consumers);
};

class LinearInput {
 public:
  LinearInput() = default;
  // `x` is [rows, cols], dense unless a row has `x_stride` elements; the forms go to `buffers`.
  LinearInput(const float* x, int32_t cols, ActivationForms forms, const ActivationBuffers& buffers,
              int32_t x_stride = 0);

  int32_t cols() const { return cols_; }
  int32_t x_stride() const { return x_stride_; }
  const ActivationForms& forms() const { return forms_; }
  // As a product with weights of activation block `block` takes it.
  kernels::Activations For(int32_t block) const;
  // The same of `columns` alone, whole blocks.
  kernels::Activations For(int32_t block, const Range& columns) const;
  // Runs fn(block) for the blocks of its quantised forms.
  template <typename Fn>
  void ForEachBlock(const Fn& fn) const {
    for (int32_t block : {16, 32, 256}) {
      if (forms_.Has(block)) fn(block);
    }
  }
  // The rows from `row` on.
  LinearInput From(int64_t row) const;
  // Brings together the columns of all members in the wanted forms of rows [0, rows); `x` is this
  // input's f32.
  void GatherForms(StepContext& step, float* x, int64_t rows, const MemberColumns& columns) const;

 private:
  const float* x_ = nullptr;
  int32_t cols_ = 0;
  int32_t x_stride_ = 0;
  ActivationForms forms_;
  ActivationBuffers buffers_;
  int64_t first_row_ = 0;
};

// y (+)= linear * input.
struct Product {
  const Linear* linear;
  float* y;  // [rows, out_features]
  bool accumulate = false;
  int64_t y_stride = 0;  // 0: dense

  int64_t stride() const { return y_stride == 0 ? linear->out_features : y_stride; }
};

// gate = act(gate_proj * input) * (up_proj * input), and then the wanted forms of `activated`,
// which reads gate: [rows, cols] like up, of which the two make columns [first, first +
// out_features).
struct GatedProduct {
  const Linear* gate_proj;
  const Linear* up_proj;
  // Of what reads the result, in panels of gate_proj: one activation block.
  int64_t panels_per_block;
  model::Activation activation;
  float* gate;
  float* up;
  int32_t cols;
  int32_t first;
  LinearInput activated;
};

// The same matrix of each head: y[row, head] = linear.At(head) * input row row * heads + head.
struct HeadProduct {
  const ExpertLinear* linear;
  int32_t heads;
  float* y;          // [rows, heads, y_stride], of which out_features are written
  int64_t y_stride;  // from head to head
};

// What a product takes from its matrix.
kernels::MatmulArgs MatmulArgsOf(const Linear& linear, int32_t rows);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_LINEAR_H_
