// The types without integer sub-scales: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4 (blocks of 32),
// NVFP4 (16).
#include "kernels/quant/blocks.h"
#include "kernels/quant/format.h"

namespace dovetail::kernels {
namespace {

void DecodeNibbles(const uint8_t* qs, int offset, int8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<int8_t>((qs[j] & 15) - offset);
    q[j + 16] = static_cast<int8_t>((qs[j] >> 4) - offset);
  }
}

// Q5's nibbles and fifth bits.
void DecodeFiveBits(const uint8_t* qs, const uint8_t* qh, int offset, int8_t* q) {
  DecodeNibbles(qs, 0, q);
  for (int j = 0; j < 32; ++j) {
    q[j] = static_cast<int8_t>((q[j] | (qh[j / 8] >> (j % 8) & 1) << 4) - offset);
  }
}

// Nibbles that are indices of a table; `half` bytes hold elements j and j + half.
void DecodeByTable(const uint8_t* qs, int half, const int8_t* values, int8_t* q) {
  for (int j = 0; j < half; ++j) {
    q[j] = values[qs[j] & 15];
    q[j + half] = values[qs[j] >> 4];
  }
}

}  // namespace

void DecodeQ4_0(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ4_0*>(block);
  DecodeNibbles(b.qs, 8, out->q);
  out->scale[0] = 1;
  out->d = LoadF16(b.d);
}

void DecodeQ4_1(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ4_1*>(block);
  DecodeNibbles(b.qs, 0, out->q);
  out->scale[0] = 1;
  out->min[0] = 1;
  out->d = LoadF16(b.d);
  out->dmin = -LoadF16(b.m);
}

void DecodeQ5_0(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ5_0*>(block);
  DecodeFiveBits(b.qs, b.qh, 16, out->q);
  out->scale[0] = 1;
  out->d = LoadF16(b.d);
}

void DecodeQ5_1(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ5_1*>(block);
  DecodeFiveBits(b.qs, b.qh, 0, out->q);
  out->scale[0] = 1;
  out->min[0] = 1;
  out->d = LoadF16(b.d);
  out->dmin = -LoadF16(b.m);
}

void DecodeQ8_0(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ8_0*>(block);
  for (int j = 0; j < 32; ++j) out->q[j] = b.qs[j];
  out->scale[0] = 1;
  out->d = LoadF16(b.d);
}

void DecodeIQ4_NL(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockIQ4_NL*>(block);
  DecodeByTable(b.qs, 16, kIq4Values, out->q);
  out->scale[0] = 1;
  out->d = LoadF16(b.d);
}

void DecodeMXFP4(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockMXFP4*>(block);
  DecodeByTable(b.qs, 16, kFp4Values, out->q);
  out->scale[0] = 1;
  out->d = E8m0(b.e);
}

void DecodeNVFP4(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockNVFP4*>(block);
  for (int s = 0; s < 4; ++s) {
    DecodeByTable(b.qs + 8 * s, 8, kFp4Values, out[s].q);
    out[s].scale[0] = 1;
    out[s].d = Ue4m3(b.d[s]);
  }
}

}  // namespace dovetail::kernels
