// Products of f32, f16 and bf16 weights (rows as GGUF stores them) with f32 activations: 32 partial
// sums by k mod 32, k padded with zeros. Included once, inside the instruction set's namespace.

struct LoadF32Weights {
  static constexpr int kBytes = 4;
  static inline F Get(const uint8_t* p) { return Load(reinterpret_cast<const float*>(p)); }
};
struct LoadF16Weights {
  static constexpr int kBytes = 2;
  static inline F Get(const uint8_t* p) { return LoadF16(reinterpret_cast<const uint16_t*>(p)); }
};
struct LoadBf16Weights {
  static constexpr int kBytes = 2;
  static inline F Get(const uint8_t* p) { return LoadBf16(reinterpret_cast<const uint16_t*>(p)); }
};

// kRows weight rows from `w` on times kTokens activation rows from `token` on.
template <typename Weights, int kRows, int kTokens>
static inline void FloatTile(const MatmulArgs& args, int64_t row, int64_t token) {
  const int64_t row_bytes = int64_t{args.k} * Weights::kBytes;
  const uint8_t* w = args.w + row * row_bytes;
  const float* x = args.x.f32 + token * args.x.f32_stride;
  F sum[kRows][kTokens][2];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sum[r][t][0] = sum[r][t][1] = Zero();
  }
  int64_t i = 0;
  for (; i + 32 <= args.k; i += 32) {
    for (int h = 0; h < 2; ++h) {
      F a[kRows];
      for (int r = 0; r < kRows; ++r) {
        a[r] = Weights::Get(w + r * row_bytes + (i + 16 * h) * Weights::kBytes);
      }
      for (int t = 0; t < kTokens; ++t) {
        const F b = Load(x + t * args.x.f32_stride + i + 16 * h);
        for (int r = 0; r < kRows; ++r) sum[r][t][h] = Fma(a[r], b, sum[r][t][h]);
      }
    }
  }
  if (i < args.k) {
    for (int r = 0; r < kRows; ++r) {
      alignas(64) uint8_t tail[32 * Weights::kBytes] = {};
      __builtin_memcpy(tail, w + r * row_bytes + i * Weights::kBytes,
                       static_cast<size_t>(args.k - i) * Weights::kBytes);
      for (int t = 0; t < kTokens; ++t) {
        alignas(64) float b[32] = {};
        __builtin_memcpy(b, x + t * args.x.f32_stride + i,
                         static_cast<size_t>(args.k - i) * sizeof(float));
        for (int h = 0; h < 2; ++h) {
          sum[r][t][h] =
              Fma(Weights::Get(tail + 16 * h * Weights::kBytes), Load(b + 16 * h), sum[r][t][h]);
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      float* y = args.y + (token + t) * args.y_stride + row + r;
      float total = TreeSum(Add(sum[r][t][0], sum[r][t][1])) * args.scale;
      if (args.bias != nullptr) total += args.bias[row + r];
      *y = args.accumulate ? *y + total : total;
    }
  }
}

template <typename Weights, int kRows>
static inline void FloatRows(const MatmulArgs& args, int64_t row) {
  int64_t token = 0;
  for (; token + kFloatTokens <= args.rows; token += kFloatTokens) {
    FloatTile<Weights, kRows, kFloatTokens>(args, row, token);
  }
  for (; token < args.rows; ++token) FloatTile<Weights, kRows, 1>(args, row, token);
}

template <typename Weights>
static void FloatMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  const int64_t last = end * 16 < args.n ? end * 16 : args.n;
  int64_t row = begin * 16;
  if (args.rows == 1) {  // more rows in flight where no activations are shared
    for (; row + 4 <= last; row += 4) FloatTile<Weights, 4, 1>(args, row, 0);
  }
  for (; row + kFloatRows <= last; row += kFloatRows) FloatRows<Weights, kFloatRows>(args, row);
  for (; row < last; ++row) FloatRows<Weights, 1>(args, row);
}
