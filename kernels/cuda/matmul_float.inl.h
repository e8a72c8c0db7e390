// Products with f32, f16 and bf16 weights: a warp for each weight row, lane i with the k that are i
// mod 32 (docs/numerics.md). After elementwise.inl.h.

#include "kernels/cuda/store.inl.h"

constexpr int kFloatWarps = 4;
constexpr int kFloatTokens = 8;

DT_DEVICE float LoadFloat(WeightType type, const uint8_t* row, int64_t i) {
  if (type == WeightType::kF32) return LoadVector<float>(row + 4 * i);
  const uint16_t half = LoadVector<uint16_t>(row + 2 * i);
  return type == WeightType::kF16 ? HalfToFloat(half) : FloatOf(static_cast<uint32_t>(half) << 16);
}

// Rows of an embedding as GGUF has them: a thread for each element.
DT_KERNEL void FloatEmbeddingKernel(EmbeddingArgs args, int64_t begin, int64_t end) {
  const int64_t index = GlobalThread();
  if (index >= (end - begin) * args.cols) return;
  const int64_t row = begin + index / args.cols, k = index % args.cols;
  const uint8_t* from = args.table + args.tokens[row] * args.row_bytes;
  const float v = LoadFloat(args.type, from, k);
  args.y[row * args.y_stride + k] = args.scale == 1.0f ? v : v * args.scale;
}

// A warp for each weight row from first_row on; block y: kFloatTokens activation rows.
DT_KERNEL void FloatKernel(DeviceMatmulArgs args, int64_t first_row, int64_t past_row) {
  int tile = 0;
  const int64_t n = first_row + GlobalWarp();
  if (!SelectRows(&args, &tile) || n >= past_row) return;
  const int64_t bytes = args.type == WeightType::kF32 ? 4 : 2;
  const uint8_t* w = args.w + n * args.k * bytes;
  const int64_t first = int64_t{tile} * kFloatTokens;
  if (first >= args.rows) return;
  const int tokens = static_cast<int>(Smaller<int64_t>(kFloatTokens, args.rows - first));
  Floats<kFloatTokens> partial = {};
  for (int64_t i = Lane(); i < CeilDiv(args.k, kWarp) * kWarp; i += kWarp) {
    const bool inside = i < args.k;
    const float a = inside ? LoadFloat(args.type, w, i) : 0.0f;
    DT_UNROLL
    for (int t = 0; t < kFloatTokens; ++t) {
      if (t >= tokens) break;
      const float b = inside ? args.x.f32[(first + t) * args.x.f32_stride + i] : 0.0f;
      partial.v[t] = Fma(a, b, partial.v[t]);
    }
  }
  TreeSums(partial, tokens);
  if (Lane() != 0) return;
  DT_UNROLL
  for (int t = 0; t < kFloatTokens; ++t) {
    if (t < tokens) StoreProduct(args, first + t, n, partial.v[t]);
  }
}
