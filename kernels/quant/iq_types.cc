// The 256-element types with codebooks: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
//
// Their scales d / 8 * (2 s + 1) (IQ3_XXS: d / 4) are a power of two times d, which is exact, and
// a small integer.
#include "kernels/quant/blocks.h"
#include "kernels/quant/codebooks.h"
#include "kernels/quant/format.h"

namespace dovetail::kernels {
namespace {

// `count` magnitudes with their signs, bit j for element j.
void PutSigned(const int8_t* magnitudes, int count, int signs, int8_t* q) {
  for (int j = 0; j < count; ++j) {
    q[j] = static_cast<int8_t>((signs >> j & 1) != 0 ? -magnitudes[j] : magnitudes[j]);
  }
}

void PutDelta(const int8_t* grid, bool minus, int8_t* q) {
  for (int j = 0; j < 8; ++j) q[j] = static_cast<int8_t>(grid[j] - 8 + (minus ? -1 : 1));
}

int16_t OddScale(int s) { return static_cast<int16_t>(2 * s + 1); }

// Sixteen scales of four bits, low nibble first.
void PutNibbleScales(const uint8_t* scales, int count, int16_t* out) {
  for (int j = 0; j < count; ++j) out[j] = OddScale(scales[j / 2] >> (4 * (j % 2)) & 15);
}

}  // namespace

void DecodeIQ2_XXS(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ2_XXS*>(block);
  out->d = LoadF16(b.d) * 0.125f;
  for (int j = 0; j < 8; ++j) {
    const uint8_t* indices = b.qs + 8 * j;
    const uint32_t word = LoadLe32(indices + 4);
    out->scale[j] = OddScale(static_cast<int>(word >> 28));
    for (int l = 0; l < 4; ++l) {
      PutSigned(kCodebooks.iq2_xxs[indices[l]], 8, ExpandSigns(word >> (7 * l)),
                out->q + 32 * j + 8 * l);
    }
  }
}

void DecodeIQ2_XS(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ2_XS*>(block);
  out->d = LoadF16(b.d) * 0.125f;
  PutNibbleScales(b.scales, 16, out->scale);
  for (int i = 0; i < 32; ++i) {
    const uint16_t word = LoadLe16(b.qs + 2 * i);
    PutSigned(kCodebooks.iq2_xs[word & 511], 8, ExpandSigns(word >> 9), out->q + 8 * i);
  }
}

void DecodeIQ2_S(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ2_S*>(block);
  out->d = LoadF16(b.d) * 0.125f;
  PutNibbleScales(b.scales, 16, out->scale);
  for (int i = 0; i < 32; ++i) {
    const int index = b.qs[i] | (b.qh[i / 4] >> (2 * (i % 4)) & 3) << 8;
    PutSigned(kCodebooks.iq2_s[index], 8, b.signs[i], out->q + 8 * i);
  }
}

void DecodeIQ3_XXS(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ3_XXS*>(block);
  out->d = LoadF16(b.d) * 0.25f;
  for (int j = 0; j < 8; ++j) {
    const uint32_t word = LoadLe32(b.signs + 4 * j);
    out->scale[j] = OddScale(static_cast<int>(word >> 28));
    for (int l = 0; l < 8; ++l) {
      const int signs = ExpandSigns(word >> (7 * (l / 2))) >> (4 * (l % 2));
      PutSigned(kCodebooks.iq3_xxs[b.qs[8 * j + l]], 4, signs, out->q + 32 * j + 4 * l);
    }
  }
}

void DecodeIQ3_S(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ3_S*>(block);
  out->d = LoadF16(b.d);
  PutNibbleScales(b.scales, 8, out->scale);
  for (int i = 0; i < 64; ++i) {
    const int index = b.qs[i] | (b.qh[i / 8] >> (i % 8) & 1) << 8;
    PutSigned(kCodebooks.iq3_s[index], 4, b.signs[i / 2] >> (4 * (i % 2)), out->q + 4 * i);
  }
}

void DecodeIQ1_S(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ1_S*>(block);
  out->d = LoadF16(b.d) * 0.125f;
  for (int j = 0; j < 8; ++j) {
    const uint16_t word = LoadLe16(b.qh + 2 * j);
    out->scale[j] = OddScale(word >> 12 & 7);
    for (int l = 0; l < 4; ++l) {
      const int index = b.qs[4 * j + l] | (word >> (3 * l) & 7) << 8;
      PutDelta(kCodebooks.iq1[index], (word & 0x8000) != 0, out->q + 32 * j + 8 * l);
    }
  }
}

void DecodeIQ1_M(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ1_M*>(block);
  out->d = F16ToF32(UnpackScaleBitsIQ1_M(b.scales)) * 0.125f;
  for (int j = 0; j < 16; ++j) {
    out->scale[j] = OddScale(LoadLe16(b.scales + j / 4 * 2) >> (3 * (j % 4)) & 7);
  }
  for (int i = 0; i < 32; ++i) {
    const int nibble = b.qh[i / 2] >> (4 * (i % 2)) & 15;
    const int index = b.qs[i] | (nibble & 7) << 8;
    PutDelta(kCodebooks.iq1[index], (nibble & 8) != 0, out->q + 8 * i);
  }
}

}  // namespace dovetail::kernels
