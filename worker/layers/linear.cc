#include "worker/layers/linear.h"

#include <algorithm>

#include "base/check.h"
#include "base/packed_layout.h"
#include "base/quantized_rows.h"
#include "kernels/kernel_table.h"
#include "worker/layers/step_ops.h"

namespace dovetail::worker {
namespace {

constexpr int32_t kSumElements = 16;  // Activations::bsum

}  // namespace

int64_t Linear::panels() const { return (out_features + kPanelRows - 1) / kPanelRows; }

int64_t Linear::panels_per_input_block() const {
  return std::max(activation_block(), kPanelRows) / kPanelRows;
}

int32_t Linear::activation_block() const { return kernels::ActivationBlock(type); }

Linear ExpertLinear::At(int32_t expert) const {
  Linear linear = first;
  linear.weight += expert * stride;
  if (linear.bias != nullptr) linear.bias += expert * bias_stride;
  if (scales != nullptr) linear.scale = scales[expert];
  return linear;
}

ActivationForms ActivationForms::Of(absl::Span<const Linear* const> consumers) {
  ActivationForms forms;
  for (const Linear* linear : consumers) {
    forms.f32 |= linear->activation_block() == 0;
    forms.block16 |= linear->activation_block() == 16;
    forms.block32 |= linear->activation_block() == 32;
    forms.block256 |= linear->activation_block() == 256;
  }
  return forms;
}

LinearInput::LinearInput(const float* x, int32_t cols, ActivationForms forms,
                         const ActivationBuffers& buffers, int32_t x_stride)
    : x_(x),
      cols_(cols),
      x_stride_(x_stride == 0 ? cols : x_stride),
      forms_(forms),
      buffers_(buffers) {}

kernels::Activations LinearInput::For(int32_t block) const {
  kernels::Activations a = {};
  a.f32 = x_ + first_row_ * x_stride_;
  a.f32_stride = x_stride_;
  a.cols = cols_;
  a.block = block;
  if (block == 0) return a;
  const QuantizedBuffer& buffer = block == 16   ? buffers_.block16
                                  : block == 32 ? buffers_.block32
                                                : buffers_.block256;
  DT_CHECK(buffer.q != nullptr);
  a.q_stride = QuantizedRowBytes(cols_);
  a.q = buffer.q + first_row_ * a.q_stride;
  a.d_stride = cols_ / block;
  a.d = buffer.d + first_row_ * a.d_stride;
  a.bsum_stride = cols_ / kSumElements;
  a.bsum = buffer.bsum + first_row_ * a.bsum_stride;
  return a;
}

kernels::Activations LinearInput::For(int32_t block, const Range& columns) const {
  kernels::Activations part = For(block);
  DT_CHECK(columns.begin % block == 0 && columns.end % block == 0);
  part.f32 += columns.begin;
  part.q += columns.begin;
  part.d += columns.begin / block;
  part.bsum += columns.begin / kSumElements;
  part.cols = static_cast<int32_t>(columns.size());
  return part;
}

LinearInput LinearInput::From(int64_t row) const {
  LinearInput input = *this;
  input.first_row_ += row;
  return input;
}

void LinearInput::GatherForms(StepContext& step, float* x, int64_t rows,
                              const MemberColumns& columns) const {
  if (columns.whole()) return;
  DT_CHECK(x == x_ && first_row_ == 0);
  if (forms_.f32) GatherColumns(step, x, x_stride_, rows, columns);
  ForEachBlock([&](int32_t block) {
    const kernels::Activations a = For(block);
    const auto buffer = [](auto* data, int64_t stride, int64_t group_columns) {
      constexpr auto kBytes = static_cast<int64_t>(sizeof(*data));
      return GatheredBuffer{.data = reinterpret_cast<uint8_t*>(data),
                            .row_bytes = stride * kBytes,
                            .group_columns = group_columns,
                            .group_bytes = kBytes};
    };
    const GatheredBuffer buffers[kMaxGatheredBuffers] = {
        buffer(a.q, a.q_stride, 1), buffer(a.d, a.d_stride, block),
        buffer(a.bsum, a.bsum_stride, kSumElements)};
    step.ops.Gather(step, buffers, rows, columns, /*at_first=*/false);
  });
}

kernels::MatmulArgs MatmulArgsOf(const Linear& linear, int32_t rows) {
  kernels::MatmulArgs args = {};
  args.w = linear.weight;
  args.type = linear.type;
  args.n = linear.out_features;
  args.k = linear.in_features;
  args.rows = rows;
  args.bias = linear.bias;
  args.scale = linear.scale;
  return args;
}

}  // namespace dovetail::worker
