// What the 4-bit codes of the non-linear types stand for. Plain data: instruction-set units include
// this.
#ifndef DOVETAIL_KERNELS_QUANT_VALUES_H_
#define DOVETAIL_KERNELS_QUANT_VALUES_H_

#include <cstdint>

namespace dovetail::kernels {

inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values of FP4 (E2M1); the scales have the other half.
inline constexpr int8_t kFp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_QUANT_VALUES_H_
