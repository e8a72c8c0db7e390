// exp(x) for f32, the same bits in every kernel (docs/numerics.md).
//
//   t = fma(x, kLog2E, kRound), n = t - kRound (the nearest integer), r = x - n ln 2 in two fmas,
//   e^r = 1 + r + r^2 (c2 + c3 r + ... + c6 r^4) by Horner with fma, then two exact powers of two,
//   so that a subnormal result is rounded once. Less than 1 ulp; x is clamped to [kLowest,
//   kHighest] first.
//
// Plain constants of internal linkage: instruction-set units include this.
#ifndef DOVETAIL_KERNELS_EXP_CONSTANTS_H_
#define DOVETAIL_KERNELS_EXP_CONSTANTS_H_

#include <cstdint>

namespace dovetail::kernels::exp_constants {

constexpr float kHighest = 89.0f;   // the result is infinite from 88.73 on
constexpr float kLowest = -105.0f;  // and zero below -104
// Attention's weights (score - max): below this they are 0, as nothing of them reaches the sums,
// and products with subnormal numbers take Intel's processors 150 cycles. What is left, e^-60 =
// 2^-86.6, times the smallest f16, is normal.
constexpr float kLowestWeight = -60.0f;
constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: n * kLn2High is exact
constexpr float kLn2Low = 0x1.7f7d1cp-20f;
constexpr float kRound = 0x1.8p+23f;  // adding it rounds to an integer in the low mantissa bits
constexpr int32_t kRoundBits = 0x4b400000;
// Minimax on [-ln 2 / 2, ln 2 / 2], relative error 3.1e-9.
constexpr float kC2 = 0x1.fffffcp-2f;
constexpr float kC3 = 0x1.55549p-3f;
constexpr float kC4 = 0x1.5558f8p-5f;
constexpr float kC5 = 0x1.123b04p-7f;
constexpr float kC6 = 0x1.6a2252p-10f;

}  // namespace dovetail::kernels::exp_constants

#endif  // DOVETAIL_KERNELS_EXP_CONSTANTS_H_
