// The dwords of P16's 6-bit scales (kernels/cpu/p16.h), made of those of a block as the file has
// them. constexpr: processors and GPUs pack by them.
#ifndef DOVETAIL_KERNELS_CPU_SCALE_DWORDS_H_
#define DOVETAIL_KERNELS_CPU_SCALE_DWORDS_H_

#include <cstdint>

#include "kernels/quant/blocks.h"

namespace dovetail::kernels {

// Scales 4 i .. 4 i + 3 of a block of Q4_K or Q5_K (UnpackScale), a byte each, and its minimums.
constexpr uint32_t FourScales(const uint8_t* scales, int i) {
  if (i == 0) return LoadLe32(scales) & 0x3f3f3f3fu;
  return (LoadLe32(scales + 8) & 0x0f0f0f0fu) | (LoadLe32(scales) & 0xc0c0c0c0u) >> 2;
}
constexpr uint32_t FourMins(const uint8_t* scales, int i) {
  if (i == 0) return LoadLe32(scales + 4) & 0x3f3f3f3fu;
  return (LoadLe32(scales + 8) >> 4 & 0x0f0f0f0fu) | (LoadLe32(scales + 4) & 0xc0c0c0c0u) >> 2;
}
constexpr uint32_t SwapMiddleBytes(uint32_t v) {
  return (v & 0xff0000ffu) | (v >> 8 & 0x0000ff00u) | (v & 0x0000ff00u) << 8;
}

// The dword with the scales of half i, or, i = 2, that of the minimums.
constexpr uint32_t ScaleMinDword(const uint8_t* scales, int i) {
  if (i < 2) {
    return FourScales(scales, i) | (SwapMiddleBytes(FourMins(scales, i)) & 0x30303030u) << 2;
  }
  uint32_t nibbles = 0;
  for (int half = 0; half < 2; ++half) {
    const uint32_t low = SwapMiddleBytes(FourMins(scales, half)) & 0x0f0f0f0fu;
    nibbles |= ((low | low >> 4) & 0x00ff00ffu) << (8 * half);
  }
  return nibbles;
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_SCALE_DWORDS_H_
