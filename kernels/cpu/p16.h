// P16: the packed layout of quantised weights, byte by byte.
//
// A matrix [n, k] is cut into panels of 16 rows (the last one padded with zero blocks). A panel is
// one linear stream: its blocks in increasing k, without gaps, so that a product reads memory in
// order. In a block, "dword plane" means that 4-byte group i of all 16 rows lies together:
//   byte  (i * 16 + row) * 4 + b   holds byte 4 i + b of the row's field,
// which makes 64 bytes = 16 lanes (rows) x 4 consecutive k: the operand of VNNI, two AVX2
// registers, or one row of an AMX tile. Nibbles and bit pairs keep the pairing of the GGUF block,
// so that packing only moves whole dwords. Byte and half planes are [i][16 rows] likewise.
//
//   Q4_0  [qs: 4 dwords][d]                             288 bytes   dword i: k = 4i.. low, 16 +
//   4i.. high Q4_1  [qs: 4 dwords][d][m]                          320 bytes   nibbles as Q4_0 Q8_0
//   [qs: 8 dwords][d]                             544 bytes   dword i: k = 4i.. Q4_K  [qs: 32
//   dwords][scale: 8 u8][min: 8 u8][d][dmin]   2368 bytes   the 6-bit scales and minimums
//                                                                    expanded to a byte each
//   Q6_K  [ql: 32 dwords][qh: 16 dwords][scale: 16 i8][d]    3360 bytes
//
// d, m and dmin are 16 halves each. Blocks are multiples of 32 bytes; the matrix starts at 64.
// Float weights are not packed: they stay rows as GGUF stores them. kernels/cpu/pack.cc writes the
// layout from the same list that is in this file, base/packed_layout.cc knows its size.
#ifndef DOVETAIL_KERNELS_CPU_P16_H_
#define DOVETAIL_KERNELS_CPU_P16_H_

#include <cstdint>

#include "base/weight_type.h"

namespace dovetail::kernels {

// Byte offsets inside one panel block.
struct P16Q4_0 {
  static constexpr int kQuants = 0, kD = 256, kBytes = 288;
};
struct P16Q4_1 {
  static constexpr int kQuants = 0, kD = 256, kMin = 288, kBytes = 320;
};
struct P16Q8_0 {
  static constexpr int kQuants = 0, kD = 512, kBytes = 544;
};
struct P16Q4_K {
  static constexpr int kQuants = 0, kScales = 2048, kMins = 2176, kD = 2304, kMin = 2336;
  static constexpr int kBytes = 2368;
};
struct P16Q6_K {
  static constexpr int kQuants = 0, kHigh = 2048, kScales = 3072, kD = 3328, kBytes = 3360;
};

// Packs rows [row_begin, row_end) (whole panels, or up to n) of the GGUF rows `src` into `dst`.
void PackP16(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
             int64_t row_end, uint8_t* dst);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_P16_H_
