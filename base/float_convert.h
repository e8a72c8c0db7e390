// Conversions between f32 and the 16-bit floats of weights and KV caches.
//
// Round to nearest even, subnormals right, NaN stays NaN (quieted, top payload bits kept): the bits
// that x86's F16C gives, on any machine. Pure functions of bits; they do not look at the rounding
// mode.
#ifndef DOVETAIL_BASE_FLOAT_CONVERT_H_
#define DOVETAIL_BASE_FLOAT_CONVERT_H_

#include <bit>
#include <cstdint>

namespace dovetail {

inline float F16ToF32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31;
  const uint32_t mantissa = h & 0x3ff;
  uint32_t bits;
  if (exponent == 31) {
    bits = 0x7f800000 | (mantissa << 13) | (mantissa != 0 ? 0x400000u : 0u);
  } else if (exponent == 0) {
    bits = std::bit_cast<uint32_t>(static_cast<float>(mantissa) * 0x1p-24f);
  } else {
    bits = ((exponent + 112) << 23) | (mantissa << 13);
  }
  return std::bit_cast<float>(sign | bits);
}

inline uint16_t F32ToF16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t abs = bits & 0x7fffffff;
  uint32_t h;
  if (abs > 0x7f800000) {
    h = 0x7e00 | ((abs >> 13) & 0x3ff);
  } else if (abs >= 0x47800000) {  // 65536 and more
    h = 0x7c00;
  } else if (abs >= 0x38800000) {  // normal in f16; a carry out of the mantissa may reach infinity
    h = (abs + 0xfff + ((abs >> 13) & 1) - (112u << 23)) >> 13;
  } else {
    // One unit in the last place of [0.5, 1) is the smallest f16 subnormal: the addition rounds.
    h = std::bit_cast<uint32_t>(std::bit_cast<float>(abs) + 0.5f) - 0x3f000000;
  }
  return static_cast<uint16_t>(sign | h);
}

inline float Bf16ToF32(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

inline uint16_t F32ToBf16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace dovetail

#endif  // DOVETAIL_BASE_FLOAT_CONVERT_H_
