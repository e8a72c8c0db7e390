// How rows of quantised activations lie: what the plan counts and what workers use.
#ifndef DOVETAIL_BASE_QUANTIZED_ROWS_H_
#define DOVETAIL_BASE_QUANTIZED_ROWS_H_

#include <cstdint>

namespace dovetail {

// Bytes from one row of `cols` int8 to the next: whole cache lines, and an odd number of them, so
// that the same column of many rows is in as many sets of a cache, whatever the model's width.
constexpr int64_t QuantizedRowBytes(int64_t cols) { return ((cols + 63) / 64 | 1) * 64; }

}  // namespace dovetail

#endif  // DOVETAIL_BASE_QUANTIZED_ROWS_H_
