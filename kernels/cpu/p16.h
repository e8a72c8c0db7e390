// P16: the packed layout of quantised weights, byte by byte.
//
// A matrix [n, k] is cut into panels of 16 output rows (the last one padded with zero blocks). A
// panel is one linear stream: its blocks in increasing k, without gaps, so that a product reads
// memory in order. In a block, "dword plane" means that 4-byte group i of all 16 rows lies
// together:
//   byte  (i * 16 + row) * 4 + b   holds byte 4 i + b of the row's field,
// which makes 64 bytes = 16 lanes (rows) x 4 consecutive k: the operand of VNNI, two AVX2
// registers, or one row of an AMX tile. Byte and half planes are [i][16 rows] likewise. Blocks of
// 32 keep the pairing of the GGUF block, so that packing only moves whole dwords; those of 256 are
// rewritten chunk by chunk (`chunks` below).
//
// clang-format off
//   type     k    planes, in order                                                  bytes / 16 rows
//   Q4_0     32   qs: 4 dwords, d                                                        288
//   IQ4_NL   32   as Q4_0                                                                288
//   Q4_1     32   qs: 4 dwords, d, m                                                     320
//   Q5_0     32   qs: 4 dwords, qh: 1 dword, d                                           352
//   Q5_1     32   qs: 4 dwords, qh: 1 dword, d, m                                        384
//   Q8_0     32   qs: 8 dwords, d                                                        544
//   MXFP4    32   qs: 4 dwords, e: 1 u8                                                  272
//   NVFP4    16   qs: 2 dwords, d (as a half)                                            160
//   Q2_K     256  8 chunks of 2 dwords, scale and min: 16 u8, d, dmin                   1344
//   Q3_K     256  8 chunks of 3 dwords, scale: 16 i8, d                                 1824
//   Q4_K     256  2 x (scale: 1 dword, 4 chunks of 4 dwords), min: 1 dword, d, dmin     2304
//   Q5_K     256  2 x (scale: 1 dword, 4 chunks of 5 dwords), min: 1 dword, d, dmin     2816
//   Q6_K     256  8 chunks of 6 dwords, scale: 16 i8, d                                 3360
//   IQ4_XS   256  8 chunks of 4 dwords, scale: 8 i8, d                                  2208
//   TQ1_0    256  8 chunks of 2 dwords, d                                               1056
//   TQ2_0    256  8 chunks of 2 dwords, d                                               1056
//   IQ2_XXS  256  index: 32 u8, signs: 8 dwords, scale: 4 u8, d                         1120
//   IQ2_XS   256  index: 32 u8, signs: 8 dwords, high: 4 u8, scale: 8 u8, d             1248
//   IQ2_S    256  index: 32 u8, signs: 8 dwords, high: 8 u8, scale: 8 u8, d             1312
//   IQ3_XXS  256  index: 64 u8, signs: 8 dwords, scale: 4 u8, d                         1632
//   IQ3_S    256  index: 64 u8, signs: 8 dwords, high: 8 u8, scale: 4 u8, d             1760
//   IQ1_S    256  index: 32 u8, high: 16 u8, scale: 4 u8, d                              864
//   IQ1_M    256  index: 32 u8, high: 16 u8, scale: 8 u8, d                              928
// clang-format on
//
// A chunk is 32 k, that is 8 groups of 4: byte b of group g is element 4 g + b. Its dwords follow
// each other and hold nothing else, so that a panel is read once and as it lies (what processors
// can foresee; planes of low and high bits apart were read 1.2 to 1.7 times as slowly). Of every
// byte, bits from the lowest on:
//   2 bits   dword i: groups i, i + 2, i + 4, i + 6
//   3 bits   dwords i = 0, 1: groups i, i + 2, low 2 bits of i + 4;
//            dword 2: groups 6, 7, high bits of 4 and of 5
//   4 bits   dword i: groups i, i + 4
//   5 bits   dwords i = 0..3: group i, low 3 bits of i + 4; dword 4: high 2 bits of 4, 5, 6, 7
//   6 bits   dwords i = 0..3: group i, low 2 bits of i + 4;
//            dwords 4 + i: high 4 bits of 4 + 2 i and of 5 + 2 i
//
// Scales and minimums of Q4_K and Q5_K have 6 bits. Byte b of the scale dword of half h: scale of
// sub-block 4 h + b and, in the upper 2 bits, those of the minimum of sub-block 4 h + 0, 2, 1, 3
// for b = 0, 1, 2, 3. The min dword has the lower 4 bits: its lower 16 bits of minimums 0, 2, 4, 6,
// the upper ones of 1, 3, 5, 7. So two neighbours are one shift and one mask away from a pair of
// int16. All of a block lies in the order in which it is used: with its scales side by side one row
// came up to 1.4 times as slowly from memory.
//
// d, m and dmin are 16 halves each. Where a field differs from the file's (chunks, 6-bit scales,
// all 8 signs of the IQ types, scales of IQ types as nibbles), cpu/expand.cc makes it.
// `signs` and Q5's qh: bit i of a row's dword is element i of 32. `high`, high bits of the indices
// in order: 1 bit (IQ2_XS, IQ3_S), 2 (IQ2_S), or 3 and the sign of delta (IQ1). Blocks are
// multiples of 16 bytes; the matrix starts at 64. Float weights are not packed: they stay rows as
// GGUF stores them. cpu/pack.cc writes the layout, cpu/embedding.cc reads single rows of it;
// base/packed_layout.cc knows the sizes.
#ifndef DOVETAIL_KERNELS_CPU_P16_H_
#define DOVETAIL_KERNELS_CPU_P16_H_

#include <cstdint>

#include "base/weight_type.h"

namespace dovetail::kernels {

struct EmbeddingArgs;

// Byte offsets inside one panel block.
struct P16Q4_0 {
  static constexpr int kQuants = 0, kD = 256, kBytes = 288;
};
struct P16Q4_1 {
  static constexpr int kQuants = 0, kD = 256, kMin = 288, kBytes = 320;
};
struct P16Q5_0 {
  static constexpr int kQuants = 0, kHigh = 256, kD = 320, kBytes = 352;
};
struct P16Q5_1 {
  static constexpr int kQuants = 0, kHigh = 256, kD = 320, kMin = 352, kBytes = 384;
};
struct P16Q8_0 {
  static constexpr int kQuants = 0, kD = 512, kBytes = 544;
};
struct P16MXFP4 {
  static constexpr int kQuants = 0, kExponents = 256, kBytes = 272;
};
struct P16NVFP4 {
  static constexpr int kQuants = 0, kD = 128, kBytes = 160;
};
struct P16Q2_K {
  static constexpr int kQuants = 0, kScales = 1024, kD = 1280, kMin = 1312, kBytes = 1344;
};
struct P16Q3_K {
  static constexpr int kQuants = 0, kScales = 1536, kD = 1792, kBytes = 1824;
};
struct P16Q4_K {
  static constexpr int kHalf = 1088, kScales = 0, kQuants = 64;  // of either half
  static constexpr int kMins = 2176, kD = 2240, kMin = 2272, kBytes = 2304;
};
struct P16Q5_K {
  static constexpr int kHalf = 1344, kScales = 0, kQuants = 64;
  static constexpr int kMins = 2688, kD = 2752, kMin = 2784, kBytes = 2816;
};
struct P16Q6_K {
  static constexpr int kQuants = 0, kScales = 3072, kD = 3328, kBytes = 3360;
};
struct P16IQ4_XS {
  static constexpr int kQuants = 0, kScales = 2048, kD = 2176, kBytes = 2208;
};
struct P16TQ {
  static constexpr int kQuants = 0, kD = 1024, kBytes = 1056;
};
struct P16IQ2_XXS {
  static constexpr int kIndex = 0, kSigns = 512, kHigh = 0, kScales = 1024, kD = 1088;
  static constexpr int kBytes = 1120;
};
struct P16IQ2_XS {
  static constexpr int kIndex = 0, kSigns = 512, kHigh = 1024, kScales = 1088, kD = 1216;
  static constexpr int kBytes = 1248;
};
struct P16IQ2_S {
  static constexpr int kIndex = 0, kSigns = 512, kHigh = 1024, kScales = 1152, kD = 1280;
  static constexpr int kBytes = 1312;
};
struct P16IQ3_XXS {
  static constexpr int kIndex = 0, kSigns = 1024, kHigh = 0, kScales = 1536, kD = 1600;
  static constexpr int kBytes = 1632;
};
struct P16IQ3_S {
  static constexpr int kIndex = 0, kSigns = 1024, kHigh = 1536, kScales = 1664, kD = 1728;
  static constexpr int kBytes = 1760;
};
struct P16IQ1_S {
  static constexpr int kIndex = 0, kHigh = 512, kScales = 768, kD = 832, kBytes = 864;
};
struct P16IQ1_M {
  static constexpr int kIndex = 0, kHigh = 512, kScales = 768, kD = 896, kBytes = 928;
};

// Of a panel of rows of k elements; `type` is quantised.
int64_t P16PanelBytes(WeightType type, int64_t k);

// Packs rows [row_begin, row_end) (whole panels, or up to n) of the GGUF rows `src` into `dst`.
void PackP16(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
             int64_t row_end, uint8_t* dst);

// Rows of an embedding (kernels/ops.h) whose table is as PackP16 makes it. What it writes is what
// the rows of the file give.
void EmbedP16(const EmbeddingArgs& args, int64_t begin, int64_t end);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_P16_H_
