// The 32-element types without sub-scales: Q4_0, Q4_1, Q8_0.
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

void DecodeQ8_0(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ8_0*>(block);
  for (int j = 0; j < 32; ++j) out->q[j] = b.qs[j];
  out->scale[0] = 1;
  out->d = LoadF16(b.d);
}

}  // namespace dovetail::kernels
