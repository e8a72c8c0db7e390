// The 256-element types without codebooks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K and IQ4_XS with integer
// sub-scales, TQ1_0 and TQ2_0 with one scale.
#include "kernels/quant/blocks.h"
#include "kernels/quant/format.h"

namespace dovetail::kernels {
namespace {

// Element i of two-bit fields in the order of Q2_K, Q3_K and TQ2_0.
int TwoBits(const uint8_t* qs, int i) {
  return qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3;
}

}  // namespace

void DecodeQ2_K(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ2_K*>(block);
  out->d = LoadF16(b.d);
  out->dmin = LoadF16(b.dmin);
  for (int j = 0; j < 16; ++j) {
    out->scale[j] = b.scales[j] & 15;
    out->min[j] = b.scales[j] >> 4;
  }
  for (int i = 0; i < 256; ++i) out->q[i] = static_cast<int8_t>(TwoBits(b.qs, i));
}

void DecodeQ3_K(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ3_K*>(block);
  out->d = LoadF16(b.d);
  for (int j = 0; j < 16; ++j) out->scale[j] = UnpackScaleQ3_K(b.scales, j);
  for (int i = 0; i < 256; ++i) {
    const int high = b.hmask[i % 32] >> (i / 32) & 1;
    out->q[i] = static_cast<int8_t>((TwoBits(b.qs, i) | high << 2) - 4);
  }
}

void DecodeQ4_K(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ4_K*>(block);
  out->d = LoadF16(b.d);
  out->dmin = LoadF16(b.dmin);
  for (int j = 0; j < 8; ++j) {
    out->scale[j] = UnpackScale(b.scales, j);
    out->min[j] = UnpackMin(b.scales, j);
  }
  for (int pair = 0; pair < 4; ++pair) {
    for (int l = 0; l < 32; ++l) {
      const uint8_t byte = b.qs[32 * pair + l];
      out->q[64 * pair + l] = byte & 15;
      out->q[64 * pair + 32 + l] = byte >> 4;
    }
  }
}

void DecodeQ5_K(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ5_K*>(block);
  out->d = LoadF16(b.d);
  out->dmin = LoadF16(b.dmin);
  for (int j = 0; j < 8; ++j) {
    out->scale[j] = UnpackScale(b.scales, j);
    out->min[j] = UnpackMin(b.scales, j);
    for (int l = 0; l < 32; ++l) {
      const int low = b.qs[j / 2 * 32 + l] >> (4 * (j % 2)) & 15;
      out->q[32 * j + l] = static_cast<int8_t>(low | (b.qh[l] >> j & 1) << 4);
    }
  }
}

void DecodeQ6_K(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ6_K*>(block);
  out->d = LoadF16(b.d);
  for (int j = 0; j < 16; ++j) out->scale[j] = b.scales[j];
  // Half h: quarter t of its 128 elements takes nibble t / 2 of ql and bits 2t, 2t + 1 of qh.
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    const int low = b.ql[64 * half + 32 * (quarter & 1) + l] >> (4 * (quarter >> 1)) & 15;
    const int high = b.qh[32 * half + l] >> (2 * quarter) & 3;
    out->q[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

void DecodeIQ4_XS(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ4_XS*>(block);
  out->d = LoadF16(b.d);
  for (int j = 0; j < 8; ++j) {
    out->scale[j] = UnpackScaleIQ4_XS(b, j);
    for (int l = 0; l < 32; ++l) {
      out->q[32 * j + l] = kIq4Values[b.qs[16 * j + l % 16] >> (4 * (l / 16)) & 15];
    }
  }
}

void DecodeTQ1_0(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockTQ1_0*>(block);
  out->d = LoadF16(b.d);
  out->scale[0] = 1;
  for (int i = 0; i < 256; ++i) out->q[i] = static_cast<int8_t>(UnpackTernary(b, i) - 1);
}

void DecodeTQ2_0(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockTQ2_0*>(block);
  out->d = LoadF16(b.d);
  out->scale[0] = 1;
  for (int i = 0; i < 256; ++i) out->q[i] = static_cast<int8_t>(TwoBits(b.qs, i) - 1);
}

}  // namespace dovetail::kernels
