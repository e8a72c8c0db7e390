#include "kernels/quant/format.h"

#include <cstring>

#include "base/check.h"
#include "base/float_convert.h"

namespace dovetail::kernels {
namespace {

constexpr QuantFormat kFormats[] = {
    {WeightType::kQ4_0, 32, 32, false, DecodeQ4_0},  {WeightType::kQ4_1, 32, 32, true, DecodeQ4_1},
    {WeightType::kQ8_0, 32, 32, false, DecodeQ8_0},  {WeightType::kQ4_K, 256, 32, true, DecodeQ4_K},
    {WeightType::kQ6_K, 256, 16, false, DecodeQ6_K},
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
  CanonicalBlock block;
  for (int64_t i = 0; i < k; i += format->block, row += block_bytes) {
    format->decode(row, &block);
    DequantizeBlock(*format, block, y + i);
  }
}

}  // namespace dovetail::kernels
