// What a GPU computes at most, in registers alone: the tensor-core products that the kernels use,
// and multiply-adds of f32.
#ifndef DOVETAIL_TESTS_GPU_PEAKS_H_
#define DOVETAIL_TESTS_GPU_PEAKS_H_

#include <cstdint>

namespace dovetail::kernels {

// So many blocks run on a multiprocessor at the same time.
inline constexpr int kPeakBlocksAtOnce = 4;

// Each starts `blocks` blocks on the default stream. `out`: a place for 32 bits of each block,
// written so that nothing can be left out.

// Returns how many 8-bit numbers are multiplied.
double StartInt8Products(int blocks, int32_t* out);
// Returns how many multiply-adds there are.
double StartF32MultiplyAdds(int blocks, int32_t* out);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_GPU_PEAKS_H_
