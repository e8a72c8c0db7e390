#include "worker/transpose.h"

#include <cstring>

#include "model/memory_plan.h"

namespace dovetail::worker {
namespace {

// Element `col` of row `row` goes to row `col`.
void PutColumns(const uint8_t* elements, int64_t size, int64_t row, int64_t rows, int64_t cols,
                uint8_t* dst) {
  for (int64_t col = 0; col < cols; ++col) {
    std::memcpy(dst + (col * rows + row) * size, elements + col * size, static_cast<size_t>(size));
  }
}

}  // namespace

std::vector<uint8_t> TransposeRows(const kernels::KernelTable& kernels, WeightType type,
                                   const uint8_t* src, int64_t rows, int64_t cols) {
  const int64_t size = StoredBytes(model::TransposedType(type), 1);
  const int64_t row_bytes = StoredBytes(type, cols);
  std::vector<uint8_t> turned(static_cast<size_t>(rows * cols * size));
  std::vector<float> dequantised(IsFloat(type) ? 0 : static_cast<size_t>(cols));
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* elements = src + row * row_bytes;
    if (!dequantised.empty()) {
      const int32_t first = 0;
      kernels.embedding({.table = elements,
                         .type = type,
                         .row_bytes = row_bytes,
                         .tokens = &first,
                         .y = dequantised.data(),
                         .y_stride = cols,
                         .cols = static_cast<int32_t>(cols)},
                        0, 1);
      elements = reinterpret_cast<const uint8_t*>(dequantised.data());
    }
    PutColumns(elements, size, row, rows, cols, turned.data());
  }
  return turned;
}

}  // namespace dovetail::worker
