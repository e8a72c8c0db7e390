#include "worker/layers/linear.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/packed_layout.h"
#include "kernels/in_place.h"

namespace dovetail::worker {
namespace {

constexpr int32_t kSumElements = 16;  // Activations::bsum

// Rows `first`, first + n, first + 2 n ...
kernels::Activations EveryNthRow(kernels::Activations a, int64_t first, int64_t n) {
  const auto step = [&](auto** data, int64_t* stride) {
    if (*data == nullptr) return;
    *data += first * *stride;
    *stride *= n;
  };
  step(&a.f32, &a.f32_stride);
  step(&a.q, &a.q_stride);
  step(&a.d, &a.d_stride);
  step(&a.bsum, &a.bsum_stride);
  return a;
}

// What a product takes from its matrix.
kernels::MatmulArgs ArgsOf(const Linear& linear, int32_t rows) {
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

void Multiply(StepContext& step, const Linear& linear, const kernels::MatmulArgs& args,
              int64_t begin, int64_t end) {
  if (linear.in_place) {
    kernels::MatmulInPlace(step.kernels, args, begin, end,
                           step.ws.panels + ThreadPool::ThisThread() * step.ws.panels_bytes);
  } else {
    step.kernels.matmul(args, begin, end);
  }
}

// Rows of int8 begin at cache lines.
int64_t QuantizedStride(int64_t cols) { return (cols + 63) / 64 * 64; }

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
  a.q_stride = QuantizedStride(cols_);
  a.q = buffer.q + first_row_ * a.q_stride;
  a.d_stride = cols_ / block;
  a.d = buffer.d + first_row_ * a.d_stride;
  a.bsum_stride = cols_ / kSumElements;
  a.bsum = buffer.bsum + first_row_ * a.bsum_stride;
  return a;
}

LinearInput LinearInput::From(int64_t row) const {
  LinearInput input = *this;
  input.first_row_ += row;
  return input;
}

void LinearInput::CopyRow(const LinearInput& from, int64_t from_row, int64_t row, float* x) const {
  const auto copy = [&](auto* to, const auto* source, int64_t stride, int64_t count) {
    std::memcpy(to + row * stride, source + from_row * stride,
                static_cast<size_t>(count) * sizeof(*to));
  };
  DT_CHECK(x == x_ && first_row_ == 0);
  DT_CHECK(x_stride_ == cols_ && from.x_stride_ == cols_);
  if (forms_.f32) copy(x, from.For(0).f32, cols_, cols_);
  for (int32_t block : {16, 32, 256}) {
    if (!forms_.Has(block)) continue;
    const kernels::Activations to = For(block), source = from.For(block);
    copy(to.q, source.q, to.q_stride, cols_);
    copy(to.d, source.d, to.d_stride, to.d_stride);
    copy(to.bsum, source.bsum, to.bsum_stride, to.bsum_stride);
  }
}

void LinearInput::GatherForms(StepContext& step, float* x, int64_t rows,
                              const MemberColumns& columns) const {
  if (columns.whole()) return;
  DT_CHECK(x == x_ && first_row_ == 0);
  if (forms_.f32) GatherColumns(step, x, x_stride_, rows, columns);
  for (int32_t block : {16, 32, 256}) {
    if (!forms_.Has(block)) continue;
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
    RunGather(step, buffers, rows, columns, /*at_first=*/false);
  }
}

void LinearInput::Quantize(const kernels::KernelTable& kernels, int64_t begin, int64_t end,
                           int32_t col_begin, int32_t col_end) const {
  for (int32_t block : {16, 32, 256}) {
    if (!forms_.Has(block)) continue;
    kernels::Activations part = For(block);
    DT_CHECK(col_begin % block == 0 && col_end % block == 0);
    part.f32 += col_begin;
    part.q += col_begin;
    part.d += col_begin / block;
    part.bsum += col_begin / kSumElements;
    part.cols = col_end - col_begin;
    kernels.quantize({part}, begin, end);
  }
}

Range RunProductSlice(StepContext& step, const Product& product, const LinearInput& input,
                      int32_t rows, int64_t begin, int64_t end) {
  const Linear& linear = *product.linear;
  kernels::MatmulArgs args = ArgsOf(linear, rows);
  args.x = input.For(linear.activation_block());
  args.y = product.y;
  args.y_stride = product.stride();
  args.accumulate = product.accumulate;
  Multiply(step, linear, args, begin, end);
  return {begin * kPanelRows, std::min<int64_t>(end * kPanelRows, linear.out_features)};
}

void RunProducts(StepContext& step, absl::Span<const Product> products, const LinearInput& input,
                 int32_t rows, bool check_finite) {
  int64_t total = 0;
  for (const Product& product : products) total += product.linear->panels();
  step.pool.Share(total, kPanelGrain, [&](int64_t from, int64_t to) {
    int64_t first = 0;  // panels of the products before this one
    for (const Product& product : products) {
      const int64_t panels = product.linear->panels();
      const int64_t begin = std::clamp(from - first, int64_t{0}, panels);
      const int64_t end = std::clamp(to - first, int64_t{0}, panels);
      first += panels;
      if (begin >= end) continue;
      const Range columns = RunProductSlice(step, product, input, rows, begin, end);
      if (check_finite) {
        CheckFinite(step, product.y, product.stride(), rows, columns.begin, columns.end);
      }
    }
  });
}

void RunHeadProducts(StepContext& step, const HeadProducts& products, const LinearInput& input,
                     int32_t rows) {
  const int64_t panels = products.linear->first.panels();
  const int32_t heads = products.heads;
  step.pool.Share(heads * panels, kPanelGrain, [&](int64_t from, int64_t to) {
    for (int64_t at = from; at < to;) {
      const int64_t head = at / panels;
      const int64_t end = std::min((head + 1) * panels, to);
      const Linear linear = products.linear->At(static_cast<int32_t>(head));
      kernels::MatmulArgs args = ArgsOf(linear, rows);
      args.x = EveryNthRow(input.For(linear.activation_block()), head, heads);
      args.y = products.y + head * products.y_stride;
      args.y_stride = heads * products.y_stride;
      Multiply(step, linear, args, at - head * panels, end - head * panels);
      at = end;
    }
  });
}

}  // namespace dovetail::worker
