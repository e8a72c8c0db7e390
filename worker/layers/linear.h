// Linear: a weight matrix as the kernels read it; LinearInput: what it is multiplied with;
// Products: several of them in one phase.
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
#include "worker/layers/layer.h"

namespace dovetail::worker {

inline constexpr int64_t kPanelGrain = 2;  // panels that a thread takes at least: a whole tile

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
  // `x` is [rows, cols], dense unless a row has `x_stride` elements; the forms go to `buffers`.
  LinearInput(const float* x, int32_t cols, ActivationForms forms, const ActivationBuffers& buffers,
              int32_t x_stride = 0);

  // Fills the wanted forms of columns [col_begin, col_end) (whole blocks) of rows [begin, end).
  void Quantize(const kernels::KernelTable& kernels, int64_t begin, int64_t end, int32_t col_begin,
                int32_t col_end) const;
  void Quantize(const kernels::KernelTable& kernels, int64_t begin, int64_t end) const {
    Quantize(kernels, begin, end, 0, cols_);
  }
  // As a product with weights of activation block `block` takes it.
  kernels::Activations For(int32_t block) const;
  // The rows from `row` on.
  LinearInput From(int64_t row) const;
  // Brings together the columns of all members in the wanted forms of rows [0, rows); `x` is this
  // input's f32.
  void GatherForms(StepContext& step, float* x, int64_t rows, const MemberColumns& columns) const;
  // Copies row `from_row` of another input with the same columns and forms here, in all its forms;
  // `x` is this input's f32.
  void CopyRow(const LinearInput& from, int64_t from_row, int64_t row, float* x) const;

 private:
  const float* x_;
  int32_t cols_;
  int32_t x_stride_;
  ActivationForms forms_;
  ActivationBuffers buffers_;
  int64_t first_row_ = 0;
};

// One product of a phase: y (+)= linear * input.
struct Product {
  const Linear* linear;
  float* y;  // [rows, out_features]
  bool accumulate = false;
  int64_t y_stride = 0;  // 0: dense

  int64_t stride() const { return y_stride == 0 ? linear->out_features : y_stride; }
};

// The slice [begin, end) of the panels of `product`; returns its first and past-the-last column.
Range RunProductSlice(StepContext& step, const Product& product, const LinearInput& input,
                      int32_t rows, int64_t begin, int64_t end);

// All products over one input in one phase; threads share the panels of all of them. What is
// written is checked to be finite if `check_finite`.
void RunProducts(StepContext& step, absl::Span<const Product> products, const LinearInput& input,
                 int32_t rows, bool check_finite);

// The same for a matrix of each head: y[row, head] = linear.At(head) * input row row * heads +
// head.
struct HeadProducts {
  const ExpertLinear* linear;
  int32_t heads;
  float* y;          // [rows, heads, y_stride], of which out_features are written
  int64_t y_stride;  // from head to head
};
void RunHeadProducts(StepContext& step, const HeadProducts& products, const LinearInput& input,
                     int32_t rows);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_LINEAR_H_
