// Norms of rows, alone and with the form of the result. After elementwise.inl.h.

// --- Norms. Lane i of one warp has the partial sum of the columns that are i mod 32. Zeros behind
// the last column change none: squares add up to no -0.

// 1 / the root of the mean square; `partial` is this lane's sum.
DT_DEVICE float InverseRoot(const RmsNormArgs& args, float partial) {
  const float mean = TreeSum(partial) / static_cast<float>(args.cols);
  return 1.0f / SquareRoot(mean + args.eps);
}

// A warp for each row of at most 32 kPerLane columns.
template <int kPerLane>
DT_KERNEL void RmsNormShortKernel(RmsNormArgs args, int64_t begin, int64_t end) {
  const int64_t row = begin + GlobalWarp();
  if (row >= end) return;
  const float* x = args.x + row * args.x_stride;
  float* y = args.y + row * args.y_stride;
  float values[kPerLane], weights[kPerLane], before[kPerLane];
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) {
    const int i = j * kWarp + Lane();
    values[j] = i < args.cols ? x[i] : 0.0f;
    weights[j] = i < args.cols ? args.weight[i] : 0.0f;
    before[j] = args.accumulate && i < args.cols ? y[i] : 0.0f;
  }
  float partial = 0.0f;
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) partial = Fma(values[j], values[j], partial);
  const float inverse = InverseRoot(args, partial);
  DT_UNROLL
  for (int j = 0; j < kPerLane; ++j) {
    const int i = j * kWarp + Lane();
    const float normed = values[j] * inverse * weights[j];
    if (i < args.cols) y[i] = args.accumulate ? before[j] + normed : normed;
  }
}

constexpr int kNormThreads = 512;
constexpr int kNormLoads = 4;  // of a thread, under way at once

// What the threads of a block have of kNormThreads * kNormLoads * kWidth columns.
template <int kWidth>
struct NormChunk {
  static constexpr int kCols = kNormThreads * kNormLoads * kWidth;
  Elements<kWidth> v[kNormLoads];
};
template <int kWidth>
DT_DEVICE int ColumnInChunk(int load) {
  return (load * kNormThreads + ThreadIndex()) * kWidth;
}

template <int kWidth>
DT_DEVICE NormChunk<kWidth> LoadChunk(const float* row, int first, int cols) {
  NormChunk<kWidth> chunk = {};
  DT_UNROLL
  for (int i = 0; i < kNormLoads; ++i) {
    const int col = first + ColumnInChunk<kWidth>(i);
    if (col < cols) chunk.v[i] = LoadVector<Elements<kWidth>>(row + col);
  }
  return chunk;
}

// The partial sum of this lane after the squares of n more columns; n is a multiple of 32, or no
// columns follow.
template <typename Shared>
DT_DEVICE float AddSquares(float partial, Shared& columns, int n) {
  constexpr int kAtOnce = 16;
  for (int first = Lane(); first < n; first += kAtOnce * kWarp) {
    float x[kAtOnce];
    DT_UNROLL
    for (int j = 0; j < kAtOnce; ++j) {
      x[j] = 0.0f;
      if (first + j * kWarp < n) x[j] = columns[first + j * kWarp];
    }
    DT_UNROLL
    for (int j = 0; j < kAtOnce; ++j) partial = Fma(x[j], x[j], partial);
  }
  return partial;
}

template <int kWidth>
DT_DEVICE void StoreNormed(const RmsNormArgs& args, float* y, int first, float inverse,
                           const NormChunk<kWidth>& x, const NormChunk<kWidth>& weight) {
  NormChunk<kWidth> before = {};
  if (args.accumulate) before = LoadChunk<kWidth>(y, first, args.cols);
  DT_UNROLL
  for (int i = 0; i < kNormLoads; ++i) {
    const int col = first + ColumnInChunk<kWidth>(i);
    Elements<kWidth> out;
    DT_UNROLL
    for (int j = 0; j < kWidth; ++j) {
      const float normed = x.v[i].v[j] * inverse * weight.v[i].v[j];
      out.v[j] = args.accumulate ? before.v[i].v[j] + normed : normed;
    }
    if (col < args.cols) StoreAligned(y + col, out);
  }
}

// A block's threads quantise a row that they have written.
template <int kBlock>
DT_DEVICE void QuantizeRow(const Activations& x, int64_t row) {
  SyncBlock();
  for (int first = 0; first < x.cols; first += BlockThreads() * kQuantizePer) {
    const int col = first + ThreadIndex() * kQuantizePer;
    const bool inside = col < x.cols;
    float values[kQuantizePer] = {};
    if (inside) LoadEight<4>(x.f32 + row * x.f32_stride + col, values);
    QuantizeEight<kBlock, true>(x, row, col, inside, values);
  }
}

// A block for each row: all of it brings the columns, warp 0 adds them up. kForm: the block of the
// form that is made of the result; 0: none.
template <int kWidth, int kForm>
DT_KERNEL_OF(kNormThreads)
void RmsNormKernel(RmsNormArgs args, Activations form, int64_t begin) {
  constexpr int kCols = NormChunk<kWidth>::kCols;
  DT_SHARED(float, columns, kCols);
  DT_SHARED(float, shared_inverse, 1);
  const int64_t row = begin + BlockIndex();
  const float* from = args.x + row * args.x_stride;
  float* y = args.y + row * args.y_stride;
  NormChunk<kWidth> x = LoadChunk<kWidth>(from, 0, args.cols);
  NormChunk<kWidth> weight = LoadChunk<kWidth>(args.weight, 0, args.cols);
  float partial = 0.0f;
  for (int first = 0; first < args.cols; first += kCols) {
    if (first > 0) {
      x = LoadChunk<kWidth>(from, first, args.cols);
      SyncBlock();
    }
    DT_UNROLL
    for (int i = 0; i < kNormLoads; ++i) {
      const int col = ColumnInChunk<kWidth>(i);
      if (first + col < args.cols) WriteShared(columns, col, x.v[i]);
    }
    SyncBlock();
    if (WarpIndex() == 0) partial = AddSquares(partial, columns, Smaller(kCols, args.cols - first));
  }
  if (WarpIndex() == 0) {
    const float inverse = InverseRoot(args, partial);
    if (Lane() == 0) shared_inverse[0] = inverse;
  }
  SyncBlock();
  const float inverse = shared_inverse[0];
  if (args.cols > kCols) x = LoadChunk<kWidth>(from, 0, args.cols);
  StoreNormed<kWidth>(args, y, 0, inverse, x, weight);
  for (int first = kCols; first < args.cols; first += kCols) {
    x = LoadChunk<kWidth>(from, first, args.cols);
    weight = LoadChunk<kWidth>(args.weight, first, args.cols);
    StoreNormed<kWidth>(args, y, first, inverse, x, weight);
  }
  if constexpr (kForm > 0) QuantizeRow<kForm>(form, row);
}
