// The blocks of quantised weights as GGUF files store them: little-endian, packed without padding.
//
// Halves are kept as bytes (blocks are only 2-byte aligned at best): read them with LoadF16.
#ifndef DOVETAIL_KERNELS_QUANT_BLOCKS_H_
#define DOVETAIL_KERNELS_QUANT_BLOCKS_H_

#include <cstdint>
#include <cstring>

#include "base/float_convert.h"

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

// y = d * q.
struct BlockQ8_0 {
  Half d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

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

// y = d * scale * (q - 32), 16 sub-blocks of 16. Low four bits in ql, high two in qh.
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  Half d;
};
static_assert(sizeof(BlockQ6_K) == 210);

inline float LoadF16(Half h) {
  uint16_t bits;
  std::memcpy(&bits, h.bytes, sizeof(bits));
  return F16ToF32(bits);
}

// Scale and minimum of sub-block j of Q4_K and Q5_K.
inline void UnpackScaleMin(const uint8_t* scales, int j, uint8_t* scale, uint8_t* min) {
  if (j < 4) {
    *scale = scales[j] & 63;
    *min = scales[j + 4] & 63;
  } else {
    *scale = static_cast<uint8_t>((scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4);
    *min = static_cast<uint8_t>((scales[j + 4] >> 4) | (scales[j] >> 6) << 4);
  }
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_QUANT_BLOCKS_H_
