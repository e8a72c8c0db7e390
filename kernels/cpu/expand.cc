#include "kernels/cpu/expand.h"

#include <cstring>

#include "kernels/cpu/chunk_dwords.h"
#include "kernels/cpu/scale_dwords.h"

namespace dovetail::kernels {
namespace {

// Eight groups of 4 elements, a byte each.
struct Groups {
  const uint32_t* values;
  uint32_t operator()(int i) const { return values[i]; }
};

template <int kBits, typename Block>
void ExpandChunks(const Block& b, uint8_t* chunks) {
  uint32_t groups[64];
  _Pragma("GCC unroll 64") for (int i = 0; i < 64; ++i) groups[i] = GroupOf(b, i);
  for (int chunk = 0; chunk < 8; ++chunk) {
    uint32_t dwords[kBits];
    _Pragma("GCC unroll 6") for (int i = 0; i < kBits; ++i) dwords[i] =
        ChunkDword<kBits>(Groups{groups + 8 * chunk}, i);
    std::memcpy(chunks + sizeof(dwords) * chunk, dwords, sizeof(dwords));
  }
}

void StoreLe32(uint8_t* to, uint32_t v) { std::memcpy(to, &v, sizeof(v)); }

// Q4_K and Q5_K: what they share.
template <int kBits, typename Block, typename Row>
void ExpandScaleMins(const Block& b, Row* r) {
  uint8_t chunks[2][sizeof(r->halves[0].chunks)];
  ExpandChunks<kBits>(b, chunks[0]);
  for (int h = 0; h < 2; ++h) {
    StoreLe32(r->halves[h].scales, ScaleMinDword(b.scales, h));
    std::memcpy(r->halves[h].chunks, chunks[h], sizeof(chunks[h]));
  }
  StoreLe32(r->mins, ScaleMinDword(b.scales, 2));
  r->d = b.d;
  r->dmin = b.dmin;
}

// Puts the low 4 bits of `value` at nibble j; the array was zero.
void PutNibble(uint8_t* nibbles, int j, unsigned value) {
  nibbles[j / 2] = static_cast<uint8_t>(nibbles[j / 2] | (value & 15) << (4 * (j % 2)));
}

}  // namespace

void ExpandNVFP4(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockNVFP4*>(block);
  for (int s = 0; s < 4; ++s) {
    auto& r = reinterpret_cast<RowNVFP4*>(row)[s];
    std::memcpy(r.qs, b.qs + 8 * s, sizeof(r.qs));
    const uint16_t half = Ue4m3AsHalf(b.d[s]);
    std::memcpy(r.d.bytes, &half, sizeof(half));
  }
}

void ExpandQ2_K(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockQ2_K*>(block);
  auto& r = *reinterpret_cast<RowQ2_K*>(row);
  ExpandChunks<2>(b, r.chunks);
  std::memcpy(r.scales, b.scales, sizeof(b.scales));
  r.d = b.d;
  r.dmin = b.dmin;
}

void ExpandQ3_K(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockQ3_K*>(block);
  auto& r = *reinterpret_cast<RowQ3_K*>(row);
  ExpandChunks<3>(b, r.chunks);
  for (int j = 0; j < 16; ++j) r.scales[j] = UnpackScaleQ3_K(b.scales, j);
  r.d = b.d;
}

void ExpandQ4_K(const uint8_t* block, uint8_t* row) {
  ExpandScaleMins<4>(*reinterpret_cast<const BlockQ4_K*>(block), reinterpret_cast<RowQ4_K*>(row));
}

void ExpandQ5_K(const uint8_t* block, uint8_t* row) {
  ExpandScaleMins<5>(*reinterpret_cast<const BlockQ5_K*>(block), reinterpret_cast<RowQ5_K*>(row));
}

void ExpandQ6_K(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockQ6_K*>(block);
  auto& r = *reinterpret_cast<RowQ6_K*>(row);
  ExpandChunks<6>(b, r.chunks);
  std::memcpy(r.scales, b.scales, sizeof(b.scales));
  r.d = b.d;
}

void ExpandIQ4_XS(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockIQ4_XS*>(block);
  auto& r = *reinterpret_cast<RowIQ4_XS*>(row);
  std::memcpy(r.chunks, b.qs, sizeof(b.qs));
  for (int j = 0; j < 8; ++j) r.scales[j] = UnpackScaleIQ4_XS(b, j);
  r.d = b.d;
}

void ExpandTQ1_0(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockTQ1_0*>(block);
  auto& r = *reinterpret_cast<RowTQ*>(row);
  ExpandChunks<2>(b, r.chunks);
  r.d = b.d;
}

void ExpandTQ2_0(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockTQ2_0*>(block);
  auto& r = *reinterpret_cast<RowTQ*>(row);
  ExpandChunks<2>(b, r.chunks);
  r.d = b.d;
}

void ExpandIQ2_XXS(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockIQ2_XXS*>(block);
  auto& r = *reinterpret_cast<RowIQ2_XXS*>(row);
  std::memset(r.scales, 0, sizeof(r.scales));
  for (int j = 0; j < 8; ++j) {
    const uint32_t word = LoadLe32(b.qs + 8 * j + 4);
    std::memcpy(r.index + 4 * j, b.qs + 8 * j, 4);
    for (int l = 0; l < 4; ++l) r.signs[4 * j + l] = ExpandSigns(word >> (7 * l));
    PutNibble(r.scales, j, word >> 28);
  }
  r.d = b.d;
}

void ExpandIQ2_XS(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockIQ2_XS*>(block);
  auto& r = *reinterpret_cast<RowIQ2_XS*>(row);
  std::memset(r.high, 0, sizeof(r.high));
  for (int i = 0; i < 32; ++i) {
    const unsigned word = LoadLe16(b.qs + 2 * i);
    r.index[i] = static_cast<uint8_t>(word);
    r.signs[i] = ExpandSigns(word >> 9);
    r.high[i / 8] = static_cast<uint8_t>(r.high[i / 8] | (word >> 8 & 1) << (i % 8));
  }
  std::memcpy(r.scales, b.scales, sizeof(b.scales));
  r.d = b.d;
}

void ExpandIQ3_XXS(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockIQ3_XXS*>(block);
  auto& r = *reinterpret_cast<RowIQ3_XXS*>(row);
  std::memcpy(r.index, b.qs, sizeof(b.qs));
  std::memset(r.scales, 0, sizeof(r.scales));
  for (int j = 0; j < 8; ++j) {
    const uint32_t word = LoadLe32(b.signs + 4 * j);
    for (int l = 0; l < 4; ++l) r.signs[4 * j + l] = ExpandSigns(word >> (7 * l));
    PutNibble(r.scales, j, word >> 28);
  }
  r.d = b.d;
}

void ExpandIQ1_S(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockIQ1_S*>(block);
  auto& r = *reinterpret_cast<RowIQ1_S*>(row);
  std::memcpy(r.index, b.qs, sizeof(b.qs));
  std::memset(r.high, 0, sizeof(r.high));
  std::memset(r.scales, 0, sizeof(r.scales));
  for (int j = 0; j < 8; ++j) {
    const unsigned word = LoadLe16(b.qh + 2 * j);
    for (int l = 0; l < 4; ++l) {
      PutNibble(r.high, 4 * j + l, (word >> (3 * l) & 7) | (word >> 12 & 8));
    }
    PutNibble(r.scales, j, word >> 12 & 7);
  }
  r.d = b.d;
}

void ExpandIQ1_M(const uint8_t* block, uint8_t* row) {
  const auto& b = *reinterpret_cast<const BlockIQ1_M*>(block);
  auto& r = *reinterpret_cast<RowIQ1_M*>(row);
  std::memcpy(r.index, b.qs, sizeof(b.qs));
  std::memcpy(r.high, b.qh, sizeof(b.qh));
  std::memset(r.scales, 0, sizeof(r.scales));
  for (int j = 0; j < 16; ++j) {
    PutNibble(r.scales, j, LoadLe16(b.scales + j / 4 * 2) >> (3 * (j % 4)) & 7u);
  }
  const uint16_t half = UnpackScaleBitsIQ1_M(b.scales);
  std::memcpy(r.d.bytes, &half, sizeof(half));
}

}  // namespace dovetail::kernels
