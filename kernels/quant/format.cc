#include "kernels/quant/format.h"

#include <cstring>

#include "base/check.h"
#include "base/float_convert.h"

namespace dovetail::kernels {
namespace {

using T = WeightType;

constexpr QuantFormat kFormats[] = {
    {T::kQ4_0, 32, 32, false, DecodeQ4_0},        {T::kQ4_1, 32, 32, true, DecodeQ4_1},
    {T::kQ5_0, 32, 32, false, DecodeQ5_0},        {T::kQ5_1, 32, 32, true, DecodeQ5_1},
    {T::kQ8_0, 32, 32, false, DecodeQ8_0},        {T::kQ2_K, 256, 16, true, DecodeQ2_K},
    {T::kQ3_K, 256, 16, false, DecodeQ3_K},       {T::kQ4_K, 256, 32, true, DecodeQ4_K},
    {T::kQ5_K, 256, 32, true, DecodeQ5_K},        {T::kQ6_K, 256, 16, false, DecodeQ6_K},
    {T::kIQ2_XXS, 256, 32, false, DecodeIQ2_XXS}, {T::kIQ2_XS, 256, 16, false, DecodeIQ2_XS},
    {T::kIQ3_XXS, 256, 32, false, DecodeIQ3_XXS}, {T::kIQ1_S, 256, 32, false, DecodeIQ1_S},
    {T::kIQ4_NL, 32, 32, false, DecodeIQ4_NL},    {T::kIQ3_S, 256, 32, false, DecodeIQ3_S},
    {T::kIQ2_S, 256, 16, false, DecodeIQ2_S},     {T::kIQ4_XS, 256, 32, false, DecodeIQ4_XS},
    {T::kIQ1_M, 256, 16, false, DecodeIQ1_M},     {T::kTQ1_0, 256, 256, false, DecodeTQ1_0},
    {T::kTQ2_0, 256, 256, false, DecodeTQ2_0},    {T::kMXFP4, 32, 32, false, DecodeMXFP4},
    {T::kNVFP4, 16, 16, false, DecodeNVFP4},
};

void DequantizeBlock(const QuantFormat& format, const CanonicalBlock& b, float* y) {
  for (int i = 0; i < format.block; ++i) {
    const int j = i / format.sub_block;
    const float scaled = b.d * static_cast<float>(b.scale[j]) * static_cast<float>(b.q[i]);
    y[i] = format.has_min ? scaled - b.dmin * static_cast<float>(b.min[j]) : scaled;
  }
}

uint16_t LoadU16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

}  // namespace

const QuantFormat* FindQuantFormat(WeightType type) {
  for (const QuantFormat& format : kFormats) {
    if (format.type == type) return &format;
  }
  return nullptr;
}

void DequantizeRow(WeightType type, const uint8_t* row, int64_t k, float* y) {
  switch (type) {
    case WeightType::kF32:
      std::memcpy(y, row, static_cast<size_t>(k) * sizeof(float));
      return;
    case WeightType::kF16:
      for (int64_t i = 0; i < k; ++i) y[i] = F16ToF32(LoadU16(row + 2 * i));
      return;
    case WeightType::kBF16:
      for (int64_t i = 0; i < k; ++i) y[i] = Bf16ToF32(LoadU16(row + 2 * i));
      return;
    default:
      break;
  }
  const QuantFormat* format = FindQuantFormat(type);
  DT_CHECK(format != nullptr);
  const int64_t block_bytes = InfoOf(type).block_bytes;
  const int parts = format->parts();
  CanonicalBlock blocks[kMaxParts];
  for (int64_t i = 0; i < k; row += block_bytes) {
    format->decode(row, blocks);
    for (int p = 0; p < parts; ++p, i += format->block) DequantizeBlock(*format, blocks[p], y + i);
  }
}

}  // namespace dovetail::kernels
