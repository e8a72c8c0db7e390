// The 256-element types with integer sub-scales: Q4_K, Q6_K.
#include "kernels/quant/blocks.h"
#include "kernels/quant/format.h"

namespace dovetail::kernels {

void DecodeQ4_K(const uint8_t* block, CanonicalBlock* out) {
  const auto& b = *reinterpret_cast<const BlockQ4_K*>(block);
  out->d = LoadF16(b.d);
  out->dmin = LoadF16(b.dmin);
  for (int j = 0; j < 8; ++j) {
    uint8_t scale, min;
    UnpackScaleMin(b.scales, j, &scale, &min);
    out->scale[j] = scale;
    out->min[j] = min;
  }
  for (int pair = 0; pair < 4; ++pair) {
    for (int l = 0; l < 32; ++l) {
      const uint8_t byte = b.qs[32 * pair + l];
      out->q[64 * pair + l] = byte & 15;
      out->q[64 * pair + 32 + l] = byte >> 4;
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

}  // namespace dovetail::kernels
