// The codebooks of the IQ weight types, expanded: what a grid index stands for, one byte per
// element.
//
// iq2_*, iq3_*: magnitudes. iq1: 8 * (value + 1), so 0, 8 or 16 for -1, 0, 1; products use
// 8 * value +- 1. Constants, expanded by the compiler from the compact codes of codebooks.inc.
// Plain data: instruction-set units include this and read 4 or 8 bytes at a time.
#ifndef DOVETAIL_KERNELS_QUANT_CODEBOOKS_H_
#define DOVETAIL_KERNELS_QUANT_CODEBOOKS_H_

#include <cstdint>

namespace dovetail::kernels {

struct Codebooks {
  alignas(64) int8_t iq1[2048][8];
  alignas(64) int8_t iq2_xxs[256][8];
  alignas(64) int8_t iq2_xs[512][8];
  alignas(64) int8_t iq2_s[1024][8];
  alignas(64) int8_t iq3_xxs[256][4];
  alignas(64) int8_t iq3_s[512][4];
};

extern const Codebooks kCodebooks;

// A codebook for processors that permute words of 16 bits: an entry in four nibbles, nibble j at
// bit kNibbleAt[j]. Element j is values[0][nibble j], element 4 + j values[1][nibble j].
constexpr int kNibbleAt[4] = {0, 8, 4, 12};
template <int kEntries>
struct NibbleCodebook {
  alignas(64) uint16_t codes[kEntries];
  alignas(16) int8_t values[2][16];
};

struct NibbleCodebooks {
  NibbleCodebook<256> iq2_xxs;
  NibbleCodebook<512> iq2_xs;
  NibbleCodebook<1024> iq2_s;
  NibbleCodebook<256> iq3_xxs;
  NibbleCodebook<512> iq3_s;
};

extern const NibbleCodebooks kNibbleCodebooks;

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_QUANT_CODEBOOKS_H_
