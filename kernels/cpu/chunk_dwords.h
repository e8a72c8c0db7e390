// The dwords of the chunks of P16's blocks of 256 (kernels/cpu/p16.h), made of the elements of a
// block. constexpr: processors and GPUs pack by them.
#ifndef DOVETAIL_KERNELS_CPU_CHUNK_DWORDS_H_
#define DOVETAIL_KERNELS_CPU_CHUNK_DWORDS_H_

#include <cstdint>

#include "kernels/quant/blocks.h"

namespace dovetail::kernels {

// Elements 4 g .. 4 g + 3 of a block as the file has them, before offsets and scales: a byte each.
// The two-bit fields of Q2_K, Q3_K and TQ2_0, and the nibbles of Q4_K and Q5_K:
constexpr uint32_t TwoBitsOf(const uint8_t* qs, int g) {
  return LoadLe32(qs + g / 32 * 32 + g % 8 * 4) >> (g % 32 / 8 * 2) & 0x03030303u;
}
constexpr uint32_t NibblesOf(const uint8_t* qs, int g) {
  return LoadLe32(qs + g / 16 * 32 + g % 8 * 4) >> (g % 16 / 8 * 4) & 0x0f0f0f0fu;
}
// Bit g / 8 of bytes 4 (g % 8) .., the high bits of Q3_K and Q5_K.
constexpr uint32_t BitOf(const uint8_t* bits, int g) {
  return LoadLe32(bits + g % 8 * 4) >> (g / 8) & 0x01010101u;
}
constexpr uint32_t GroupOf(const BlockQ2_K& b, int g) { return TwoBitsOf(b.qs, g); }
constexpr uint32_t GroupOf(const BlockQ3_K& b, int g) {
  return TwoBitsOf(b.qs, g) | BitOf(b.hmask, g) << 2;
}
constexpr uint32_t GroupOf(const BlockQ4_K& b, int g) { return NibblesOf(b.qs, g); }
constexpr uint32_t GroupOf(const BlockQ5_K& b, int g) {
  return NibblesOf(b.qs, g) | BitOf(b.qh, g) << 4;
}
// Quarter t of the 128 elements of half h takes nibble t / 2 of ql and bits 2 t, 2 t + 1 of qh.
constexpr uint32_t GroupOf(const BlockQ6_K& b, int g) {
  const int half = g / 32, quarter = g % 32 / 8, at = g % 8 * 4;
  const uint32_t low = LoadLe32(b.ql + 64 * half + quarter % 2 * 32 + at) >> (quarter / 2 * 4);
  const uint32_t high = LoadLe32(b.qh + 32 * half + at) >> (quarter * 2);
  return (low & 0x0f0f0f0fu) | (high & 0x03030303u) << 4;
}
constexpr uint32_t GroupOf(const BlockTQ1_0& b, int g) {
  return UnpackTernary(b, 4 * g) | UnpackTernary(b, 4 * g + 1) << 8 |
         UnpackTernary(b, 4 * g + 2) << 16 | UnpackTernary(b, 4 * g + 3) << 24;
}
constexpr uint32_t GroupOf(const BlockTQ2_0& b, int g) { return TwoBitsOf(b.qs, g); }

// Dword i of a chunk, whose group j is group(j): kBits bits of an element each. A chunk has kBits
// dwords.
template <int kBits, typename Groups>
constexpr uint32_t ChunkDword(const Groups& group, int i) {
  static_assert(kBits >= 2 && kBits <= 6);
  if constexpr (kBits == 2) {
    return group(i) | group(i + 2) << 2 | group(i + 4) << 4 | group(i + 6) << 6;
  } else if constexpr (kBits == 3) {
    if (i < 2) return group(i) | group(i + 2) << 3 | (group(i + 4) & 0x03030303u) << 6;
    return group(6) | group(7) << 3 | (group(4) & 0x04040404u) << 4 | (group(5) & 0x04040404u) << 5;
  } else if constexpr (kBits == 4) {
    return group(i) | group(i + 4) << 4;
  } else if constexpr (kBits == 5) {
    if (i < 4) return group(i) | (group(i + 4) & 0x07070707u) << 5;
    return (group(4) & 0x18181818u) >> 3 | (group(5) & 0x18181818u) >> 1 |
           (group(6) & 0x18181818u) << 1 | (group(7) & 0x18181818u) << 3;
  } else {
    if (i < 4) return group(i) | (group(i + 4) & 0x03030303u) << 6;
    return (group(2 * i - 4) & 0x3c3c3c3cu) >> 2 | (group(2 * i - 3) & 0x3c3c3c3cu) << 2;
  }
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_CHUNK_DWORDS_H_
