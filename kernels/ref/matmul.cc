#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/float_convert.h"
#include "kernels/quant/format.h"
#include "kernels/ref/ref.h"

namespace dovetail::kernels::ref {
namespace {

constexpr float kSmallestAmax = 1e-30f;
constexpr int kTokenTile = 64;

float RoundToNearestEven(float v) { return v + 0x1.8p+23f - 0x1.8p+23f; }

// One activation block; a non-finite input makes the whole block's d NaN.
void QuantizeBlock(const float* x, int block, int8_t* q, float* d, int16_t* bsum) {
  uint32_t abs_max_bits = 0;
  for (int i = 0; i < block; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7fffffff;
    abs_max_bits = bits > abs_max_bits ? bits : abs_max_bits;
  }
  const float amax = std::bit_cast<float>(abs_max_bits);
  for (int i = 0; i < block / 16; ++i) bsum[i] = 0;
  if (!(amax >= kSmallestAmax) || std::isinf(amax)) {
    for (int i = 0; i < block; ++i) q[i] = 0;
    *d = amax < kSmallestAmax ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  *d = amax / 127.0f;
  const float inverse = 127.0f / amax;
  for (int i = 0; i < block; ++i) {
    const float v = RoundToNearestEven(x[i] * inverse);
    q[i] = static_cast<int8_t>(v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v);
    bsum[i / 16] = static_cast<int16_t>(bsum[i / 16] + q[i]);
  }
}

float LoadFloat(WeightType type, const uint8_t* row, int64_t i) {
  if (type == WeightType::kF32) {
    float f;
    std::memcpy(&f, row + 4 * i, sizeof(f));
    return f;
  }
  uint16_t h;
  std::memcpy(&h, row + 2 * i, sizeof(h));
  return type == WeightType::kF16 ? F16ToF32(h) : Bf16ToF32(h);
}

// 32 partial sums by k mod 32; k is padded with zeros to a multiple of 32.
float FloatDot(WeightType type, const uint8_t* w, const float* x, int64_t k) {
  float partial[32] = {};
  for (int64_t i = 0; i < (k + 31) / 32 * 32; ++i) {
    const float a = i < k ? LoadFloat(type, w, i) : 0.0f;
    const float b = i < k ? x[i] : 0.0f;
    partial[i % 32] = std::fma(a, b, partial[i % 32]);
  }
  return TreeSum(partial, 32);
}

// Adds one weight block times one activation block to *acc: exact integers, then one fma (two where
// the format has minimums).
void AddBlock(const QuantFormat& format, const CanonicalBlock& w, const int8_t* q,
              const int16_t* bsum, float dx, float* acc) {
  int32_t product = 0, minimum = 0;
  for (int j = 0; j < format.block / format.sub_block; ++j) {
    int32_t dot = 0;
    for (int i = j * format.sub_block; i < (j + 1) * format.sub_block; ++i) dot += w.q[i] * q[i];
    product += w.scale[j] * dot;
    if (!format.has_min) continue;
    for (int s = j * format.sub_block / 16; s < (j + 1) * format.sub_block / 16; ++s) {
      minimum += w.min[j] * bsum[s];
    }
  }
  *acc = std::fma(static_cast<float>(product), w.d * dx, *acc);
  if (format.has_min) *acc = std::fma(static_cast<float>(minimum), -w.dmin * dx, *acc);
}

void Store(const MatmulArgs& args, int64_t token, int64_t n, float sum) {
  float* y = args.y + token * args.y_stride + n;
  sum *= args.scale;
  if (args.bias != nullptr) sum += args.bias[n];
  *y = args.accumulate ? *y + sum : sum;
}

void QuantRow(const MatmulArgs& args, const QuantFormat& format, int64_t n) {
  const int64_t block_bytes = InfoOf(args.type).block_bytes;
  const int parts = format.parts();
  const int64_t num_stored = args.k / (format.block * parts);
  for (int64_t first = 0; first < args.rows; first += kTokenTile) {
    const int64_t last = first + kTokenTile < args.rows ? first + kTokenTile : args.rows;
    float acc[kTokenTile] = {};
    CanonicalBlock w[kMaxParts];
    for (int64_t b = 0; b < num_stored * parts; ++b) {
      if (b % parts == 0) format.decode(args.w + (n * num_stored + b / parts) * block_bytes, w);
      for (int64_t t = first; t < last; ++t) {
        AddBlock(format, w[b % parts], args.x.q + t * args.x.q_stride + b * format.block,
                 args.x.bsum + t * args.x.bsum_stride + b * format.block / 16,
                 args.x.d[t * args.x.d_stride + b], &acc[t - first]);
      }
    }
    for (int64_t t = first; t < last; ++t) Store(args, t, n, acc[t - first]);
  }
}

}  // namespace

void Pack(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
          int64_t row_end, uint8_t* dst) {
  const int64_t row_bytes = StoredBytes(type, k);
  std::memcpy(dst + row_begin * row_bytes, src + row_begin * row_bytes,
              static_cast<size_t>((row_end - row_begin) * row_bytes));
}

void Quantize(const QuantizeArgs& args, int64_t begin, int64_t end) {
  const Activations& x = args.x;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t b = 0; b < x.cols / x.block; ++b) {
      QuantizeBlock(x.f32 + row * x.f32_stride + b * x.block, x.block,
                    x.q + row * x.q_stride + b * x.block, x.d + row * x.d_stride + b,
                    x.bsum + row * x.bsum_stride + b * x.block / 16);
    }
  }
}

void Matmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  const QuantFormat* format = FindQuantFormat(args.type);
  DT_CHECK(format != nullptr || IsFloat(args.type));
  const int64_t last = end * kPanelRows < args.n ? end * kPanelRows : args.n;
  for (int64_t n = begin * kPanelRows; n < last; ++n) {
    if (format != nullptr) {
      QuantRow(args, *format, n);
      continue;
    }
    const uint8_t* w = args.w + n * StoredBytes(args.type, args.k);
    for (int64_t t = 0; t < args.rows; ++t) {
      Store(args, t, n, FloatDot(args.type, w, args.x.f32 + t * args.x.f32_stride, args.k));
    }
  }
}

}  // namespace dovetail::kernels::ref
