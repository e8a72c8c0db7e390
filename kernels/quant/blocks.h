// The blocks of quantised weights as GGUF files store them: little-endian, packed without padding.
//
// Halves are kept as bytes (blocks are only 2-byte aligned at best): read them with LoadF16.
#ifndef DOVETAIL_KERNELS_QUANT_BLOCKS_H_
#define DOVETAIL_KERNELS_QUANT_BLOCKS_H_

#include <cstdint>
#include <cstring>

#include "base/float_convert.h"
#include "kernels/quant/values.h"

namespace dovetail::kernels {

struct Half {
  uint8_t bytes[2];
};

// y = d * (q - 8); byte j holds q[j] in its low and q[j + 16] in its high nibble.
struct BlockQ4_0 {
  Half d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// y = d * q + m; nibbles as in Q4_0.
struct BlockQ4_1 {
  Half d;
  Half m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// y = d * (q - 16); nibbles as in Q4_0, bit j of qh is the fifth bit of q[j].
struct BlockQ5_0 {
  Half d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// y = d * q + m; q as in Q5_0.
struct BlockQ5_1 {
  Half d;
  Half m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// y = d * q.
struct BlockQ8_0 {
  Half d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// y = d * kIq4Values[q]; nibbles as in Q4_0.
struct BlockIQ4_NL {
  Half d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// y = 2^(e - 128) * kFp4Values[q]; nibbles as in Q4_0.
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

// y = Ue4m3(d[s]) * kFp4Values[q], 4 sub-blocks of 16 with a scale each. Byte 8 s + j of qs holds
// elements j (low) and j + 8 (high nibble) of sub-block s.
struct BlockNVFP4 {
  uint8_t d[4];
  uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

// y = d * scale * q - dmin * min, 16 sub-blocks of 16; scale in the low, min in the high nibble of
// a byte of `scales`. Byte 32 h + l of qs holds elements 128 h + 32 t + l, t = 0..3, in bits 2 t.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  Half d;
  Half dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// y = d * (scale - 32) * (q - 4), 16 sub-blocks of 16. Low two bits as in Q2_K, the third bit of
// elements 32 c + l is bit c of hmask[l]. `scales` packs sixteen 6-bit scales.
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  Half d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// y = d * scale * q - dmin * min, 8 sub-blocks of 32. Bytes 32p..32p+31 of qs hold sub-block 2p in
// the low and 2p + 1 in the high nibbles. `scales` packs eight 6-bit scales and eight 6-bit
// minimums.
struct BlockQ4_K {
  Half d;
  Half dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// As Q4_K, with bit j of qh[l] the fifth bit of element l of sub-block j.
struct BlockQ5_K {
  Half d;
  Half dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// y = d * scale * (q - 32), 16 sub-blocks of 16. Low four bits in ql, high two in qh.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  Half d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// y = d * (scale - 32) * kIq4Values[q], 8 sub-blocks of 32; 16 bytes of qs each, nibbles as in
// Q4_0. Low four bits of the scales in scales_l, high two in scales_h.
struct BlockIQ4_XS {
  Half d;
  uint8_t scales_h[2];
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// y = d * (q - 1), q = 0, 1, 2. Five to a byte of qs (four to one of qh), as the byte's leading
// ternary digits: digit n of byte m is element 32 n + m of the first 160 (bytes 0..31), 16 n + m of
// the next 80 (bytes 32..47), 4 n + m of the last 16 (qh).
struct BlockTQ1_0 {
  uint8_t qs[48];
  uint8_t qh[4];
  Half d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

// y = d * (q - 1); two bits each, in the order of Q2_K.
struct BlockTQ2_0 {
  uint8_t qs[64];
  Half d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

// The types with codebooks (kernels/quant/codebooks.h): a grid index stands for 8 (IQ3: 4)
// magnitudes, sign bits follow. kSigns7: 7 sign bits, the eighth makes their number even.

// y = d / 8 * (2 s + 1) * (+-grid), 8 sub-blocks of 32: 4 indices, then 4 x 7 sign bits and s.
struct BlockIQ2_XXS {
  Half d;
  uint8_t qs[64];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

// The same with 16 sub-blocks of 16; qs: 16-bit words of 9 bits of index, 7 of signs.
struct BlockIQ2_XS {
  Half d;
  uint8_t qs[64];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

// The same with 10 bits of index (8 in qs, 2 in qh) and all 8 signs.
struct BlockIQ2_S {
  Half d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

// y = d / 4 * (2 s + 1) * (+-grid), 8 sub-blocks of 32; indices of 4 elements in qs, then a 32-bit
// word of 4 x 7 sign bits and s for each sub-block.
struct BlockIQ3_XXS {
  Half d;
  uint8_t qs[64];
  uint8_t signs[32];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

// y = d * (2 s + 1) * (+-grid), 8 sub-blocks of 32; ninth index bits in qh.
struct BlockIQ3_S {
  Half d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

// y = d / 8 * (2 s + 1) * (8 * grid + delta), 8 sub-blocks of 32; qh: 16-bit words of 4 x 3 high
// index bits, s, and the sign of delta (+-1).
struct BlockIQ1_S {
  Half d;
  uint8_t qs[32];
  uint8_t qh[16];
};
static_assert(sizeof(BlockIQ1_S) == 50);

// The same with 16 sub-blocks of 16 and a delta per 8; a nibble of qh has 3 high index bits and the
// sign of delta. d is the high nibbles of the four 16-bit words of `scales`.
struct BlockIQ1_M {
  uint8_t qs[32];
  uint8_t qh[16];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ1_M) == 56);

// What follows is constexpr where a GPU's kernels call it too.

constexpr uint16_t LoadLe16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
constexpr uint32_t LoadLe32(const uint8_t* p) {
  return LoadLe16(p) | static_cast<uint32_t>(LoadLe16(p + 2)) << 16;
}

inline float LoadF16(Half h) {
  uint16_t bits;
  std::memcpy(&bits, h.bytes, sizeof(bits));
  return F16ToF32(bits);
}

// Scale and minimum of sub-block j of Q4_K and Q5_K.
constexpr uint8_t UnpackScale(const uint8_t* scales, int j) {
  if (j < 4) return scales[j] & 63;
  return static_cast<uint8_t>((scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4);
}
constexpr uint8_t UnpackMin(const uint8_t* scales, int j) {
  if (j < 4) return scales[j + 4] & 63;
  return static_cast<uint8_t>((scales[j + 4] >> 4) | (scales[j] >> 6) << 4);
}

// Scale of sub-block j of Q3_K, -32..31.
constexpr int8_t UnpackScaleQ3_K(const uint8_t* scales, int j) {
  const int low = scales[j % 8] >> (4 * (j / 8)) & 15;
  const int high = scales[8 + j % 4] >> (2 * (j / 4)) & 3;
  return static_cast<int8_t>((low | high << 4) - 32);
}

// Scale of sub-block j of IQ4_XS, -32..31.
constexpr int8_t UnpackScaleIQ4_XS(const BlockIQ4_XS& b, int j) {
  const int low = b.scales_l[j / 2] >> (4 * (j % 2)) & 15;
  const int high = LoadLe16(b.scales_h) >> (2 * j) & 3;
  return static_cast<int8_t>((low | high << 4) - 32);
}

// Eight sign bits from seven: the number of set bits is even.
constexpr uint8_t ExpandSigns(uint32_t seven) {
  const uint32_t low = seven & 127;
  const uint32_t odd = 0x6996u >> ((low ^ low >> 4) & 15) & 1;  // bits of a nibble: an odd number
  return static_cast<uint8_t>(low | odd << 7);
}

// Digit n of a byte of TQ1_0, 0..2: the bytes are fractions of 256 in base 3.
constexpr uint8_t TernaryDigit(uint8_t byte, int n) {
  constexpr uint64_t kPowers = 0x511b090301;  // of 3, a byte each
  const auto power = static_cast<uint8_t>(kPowers >> (8 * n));
  return static_cast<uint8_t>(static_cast<uint8_t>(byte * power) * 3 >> 8);
}

// Element i of the 256 of TQ1_0, 0..2.
constexpr uint8_t UnpackTernary(const BlockTQ1_0& b, int i) {
  if (i < 160) return TernaryDigit(b.qs[i % 32], i / 32);
  if (i < 240) return TernaryDigit(b.qs[32 + i % 16], (i - 160) / 16);
  return TernaryDigit(b.qh[i % 4], (i - 240) / 4);
}

// The bits of IQ1_M's d, a half.
constexpr uint16_t UnpackScaleBitsIQ1_M(const uint8_t* scales) {
  return static_cast<uint16_t>(LoadLe16(scales) >> 12 | (LoadLe16(scales + 2) >> 8 & 0x00f0) |
                               (LoadLe16(scales + 4) >> 4 & 0x0f00) |
                               (LoadLe16(scales + 6) & 0xf000));
}

// NVFP4's scale, halved (kFp4Values are doubled): unsigned E4M3, exponent bias 7. 0x7f, NaN
// elsewhere, is 0 and the top bit means nothing, as ggml has it.
inline float Ue4m3(uint8_t v) {
  if (v == 0x7f) return 0.0f;
  const int exponent = v >> 3 & 15, mantissa = v & 7;
  const int significand = exponent == 0 ? mantissa : 8 + mantissa;
  const int power = exponent == 0 ? 1 : exponent;
  return static_cast<float>(significand << power) * 0x1p-11f;
}

// The same as a half, which has room for its four bits of significand.
constexpr uint16_t Ue4m3AsHalf(uint8_t v) {
  const int exponent = v >> 3 & 15, mantissa = v & 7;
  if (v == 0x7f || (exponent | mantissa) == 0) return 0;
  if (exponent > 0) return static_cast<uint16_t>((exponent + 7) << 10 | mantissa << 7);
  const int leading = mantissa >= 4 ? 2 : mantissa >= 2 ? 1 : 0;
  return static_cast<uint16_t>((leading + 5) << 10 | (mantissa - (1 << leading)) << (10 - leading));
}

// MXFP4's scale, halved: 2^(e - 128), subnormal for e < 2. (255, NaN elsewhere, is a number here,
// as ggml has it.)
inline float E8m0(uint8_t e) {
  const uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_QUANT_BLOCKS_H_
