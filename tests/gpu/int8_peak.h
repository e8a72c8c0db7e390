// StartInt8Products: nothing but the tensor-core products that the kernels use, in registers: what
// a GPU multiplies at most with them.
#ifndef DOVETAIL_TESTS_GPU_INT8_PEAK_H_
#define DOVETAIL_TESTS_GPU_INT8_PEAK_H_

#include <cstdint>

namespace dovetail::kernels {

// So many blocks run on a multiprocessor at the same time.
inline constexpr int kInt8BlocksAtOnce = 4;

// Starts `blocks` blocks on the default stream. `out`: a place for 32 bits of each block, written
// so that no product can be left out. Returns how many 8-bit numbers are multiplied.
double StartInt8Products(int blocks, int32_t* out);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_GPU_INT8_PEAK_H_
