// Ops on rows: activation quantisation, gated activations, rope, the sum over experts. Each
// computes what kernels/ref does, operation by operation, for rows [begin, end).

constexpr int kRowThreads = 128;  // threads of a block that works on rows

DT_DEVICE float Exp(float x) {
  using namespace exp_constants;
  if (x != x) return x;
  x = kHighest < x ? kHighest : x;
  x = kLowest > x ? kLowest : x;
  const float t = Fma(x, kLog2E, kRound);
  const float n = t - kRound;
  float r = Fma(n, -kLn2High, x);
  r = Fma(n, -kLn2Low, r);
  float p = kC6;
  p = Fma(p, r, kC5);
  p = Fma(p, r, kC4);
  p = Fma(p, r, kC3);
  p = Fma(p, r, kC2);
  p = Fma(p, r, 1.0f);
  p = Fma(p, r, 1.0f);
  const int32_t power = static_cast<int32_t>(BitsOf(t)) - kRoundBits;
  const int32_t first = power >> 1;
  const int32_t second = power - first;
  const float scale1 = FloatOf(static_cast<uint32_t>(first + 127) << 23);
  const float scale2 = FloatOf(static_cast<uint32_t>(second + 127) << 23);
  return p * scale1 * scale2;
}

// Attention's weights: exp(x), and 0 below kLowestWeight.
DT_DEVICE float AttentionWeight(float x) {
  return x < exp_constants::kLowestWeight ? 0.0f : Exp(x);
}

DT_DEVICE float RoundToNearestEven(float v) { return v + 0x1.8p+23f - 0x1.8p+23f; }

// The warp of this thread, counted over the grid.
DT_DEVICE int64_t GlobalWarp() {
  return int64_t{BlockIndex()} * (BlockThreads() / kWarp) + WarpIndex();
}
DT_DEVICE int64_t GlobalThread() { return int64_t{BlockIndex()} * BlockThreads() + ThreadIndex(); }

// `kWidth` neighbours of a row, as one load or store: 4 where everything lies on 16 bytes, else 1.
template <int kWidth>
struct alignas(4 * kWidth) Elements {
  float v[kWidth];
};

// The first of the columns that a thread has where blocks x are rows and blocks y share columns.
template <int kWidth>
DT_DEVICE int ColumnOfThread() {
  return (BlockIndexY() * BlockThreads() + ThreadIndex()) * kWidth;
}

// --- Activations. A lane has eight neighbours of a row.

constexpr int kQuantizePer = 8;

struct alignas(8) Bytes8 {
  int8_t v[kQuantizePer];
};

DT_DEVICE int QuantizeOne(float x, float inverse) {
  const float v = RoundToNearestEven(x * inverse);
  return static_cast<int>(v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v);
}

template <int kWidth>
DT_DEVICE void LoadEight(const float* from, float (&values)[kQuantizePer]) {
  DT_UNROLL
  for (int i = 0; i < kQuantizePer; i += kWidth) {
    const auto four = LoadVector<Elements<kWidth>>(from + i);
    DT_UNROLL
    for (int j = 0; j < kWidth; ++j) values[i + j] = four.v[j];
  }
}

// Columns col .. col + 7 of a row, of which a lane has the values; `inside`: they are columns. All
// lanes of a warp take part. kWide: q lies on as many bytes as a lane stores at once.
template <int kBlock, bool kWide>
DT_DEVICE void QuantizeEight(const Activations& x, int64_t row, int col, bool inside,
                             const float (&values)[kQuantizePer]) {
  constexpr float kSmallestAmax = 1e-30f;
  constexpr int kLanes = kBlock / kQuantizePer;
  uint32_t abs_max = 0;
  DT_UNROLL
  for (int i = 0; i < kQuantizePer; ++i) {
    abs_max = Larger(abs_max, BitsOf(values[i]) & 0x7fffffffu);
  }
  DT_UNROLL
  for (int half = kLanes / 2; half > 0; half /= 2) {
    abs_max = Larger(abs_max, ShuffleXor(abs_max, half));
  }
  const float amax = FloatOf(abs_max);
  const bool normal = amax >= kSmallestAmax && abs_max < 0x7f800000u;
  const float inverse = normal ? 127.0f / amax : 0.0f;
  Bytes8 q;
  int sum = 0;
  DT_UNROLL
  for (int i = 0; i < kQuantizePer; ++i) {
    const int one = normal ? QuantizeOne(values[i], inverse) : 0;
    q.v[i] = static_cast<int8_t>(one);
    sum += one;
  }
  sum += ShuffleXor(sum, 1);  // of 16
  if (!inside) return;
  int8_t* to = x.q + row * x.q_stride + col;
  if (kWide) {
    StoreAligned(to, q);
  } else {
    for (int i = 0; i < kQuantizePer; ++i) to[i] = q.v[i];
  }
  if (col % 16 == 0) x.bsum[row * x.bsum_stride + col / 16] = static_cast<int16_t>(sum);
  if (col % kBlock != 0) return;
  const float none = amax < kSmallestAmax ? 0.0f : FloatOf(0x7fc00000u);
  x.d[row * x.d_stride + col / kBlock] = normal ? amax / 127.0f : none;
}

// kWide: everything lies on as many bytes as a lane loads and stores at once.
template <int kBlock, bool kWide>
DT_KERNEL void QuantizeKernel(Activations x, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  const int col = ColumnOfThread<kQuantizePer>();
  const bool inside = col < x.cols;
  float values[kQuantizePer] = {};
  if (inside) LoadEight<kWide ? 4 : 1>(x.f32 + row * x.f32_stride + col, values);
  QuantizeEight<kBlock, kWide>(x, row, col, inside, values);
}

// --- A thread for kWidth neighbours of a row.

struct SiluMul {
  DT_DEVICE_MEMBER float Of(float g, float u) { return g / (1.0f + Exp(-g)) * u; }
};
struct GeluMul {
  DT_DEVICE_MEMBER float Of(float g, float u) {
    using namespace gated_constants;
    const float t = Fma(kGeluC1, g * g, kGeluC0) * g;
    return g / (1.0f + Exp(-t)) * u;
  }
};
struct SwigluOai {
  DT_DEVICE_MEMBER float Of(float g, float u) {
    using namespace gated_constants;
    g = kOaiLimit < g ? kOaiLimit : g;
    u = kOaiLimit < u ? kOaiLimit : u;
    u = -kOaiLimit > u ? -kOaiLimit : u;
    return g / (1.0f + Exp(-kOaiAlpha * g)) * (u + 1.0f);
  }
};

template <typename Op, int kWidth>
DT_KERNEL void GatedKernel(GatedArgs args, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  const int col = ColumnOfThread<kWidth>();
  if (col >= args.cols) return;
  const auto gate = LoadVector<Elements<kWidth>>(args.gate + row * args.in_stride + col);
  const auto up = LoadVector<Elements<kWidth>>(args.up + row * args.in_stride + col);
  Elements<kWidth> y;
  DT_UNROLL
  for (int i = 0; i < kWidth; ++i) y.v[i] = Op::Of(gate.v[i], up.v[i]);
  StoreAligned(args.y + row * args.y_stride + col, y);
}

// The same, and the form that is made of the result: a lane has eight neighbours.
template <typename Op, int kBlock>
DT_KERNEL void GatedQuantizeKernel(GatedArgs args, Activations form, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  const int col = ColumnOfThread<kQuantizePer>();
  const bool inside = col < args.cols;
  float y[kQuantizePer] = {};
  if (inside) {
    float gate[kQuantizePer], up[kQuantizePer];
    LoadEight<4>(args.gate + row * args.in_stride + col, gate);
    LoadEight<4>(args.up + row * args.in_stride + col, up);
    DT_UNROLL
    for (int i = 0; i < kQuantizePer; ++i) y[i] = Op::Of(gate[i], up[i]);
    float* to = args.y + row * args.y_stride + col;
    StoreAligned(to, Elements<4>{{y[0], y[1], y[2], y[3]}});
    StoreAligned(to + 4, Elements<4>{{y[4], y[5], y[6], y[7]}});
  }
  QuantizeEight<kBlock, true>(form, row, col, inside, y);
}

DT_KERNEL void SigmoidKernel(const float* x, float* y, int64_t n) {
  const int64_t i = GlobalThread();
  if (i < n) y[i] = 1.0f / (1.0f + Exp(-x[i]));
}

constexpr int kSlotsAtOnce = 9;  // eight experts and a shared one

template <int kWidth>
DT_KERNEL void CombineKernel(CombineArgs args, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  const int col = ColumnOfThread<kWidth>();
  if (col >= args.cols) return;
  const int32_t* sources = args.sources + row * args.slots;
  const float* weights = args.weights + row * args.slots;
  float* to = args.x + row * args.x_stride + col;
  auto x = LoadVector<Elements<kWidth>>(to);
  Elements<kWidth> acc = {};
  for (int first = 0; first < args.slots; first += kSlotsAtOnce) {
    Elements<kWidth> y[kSlotsAtOnce];
    float weight[kSlotsAtOnce];
    DT_UNROLL
    for (int s = 0; s < kSlotsAtOnce; ++s) {
      if (first + s >= args.slots) continue;
      const int64_t source = sources[first + s];
      weight[s] = weights[first + s];
      y[s] = LoadVector<Elements<kWidth>>(args.y + source * args.y_stride + col);
    }
    DT_UNROLL
    for (int s = 0; s < kSlotsAtOnce; ++s) {
      if (first + s >= args.slots) continue;
      DT_UNROLL
      for (int i = 0; i < kWidth; ++i) acc.v[i] = Fma(weight[s], y[s].v[i], acc.v[i]);
    }
  }
  DT_UNROLL
  for (int i = 0; i < kWidth; ++i) x.v[i] += acc.v[i];
  StoreAligned(to, x);
}

// Pair `i` of a head.
DT_DEVICE void RotatePair(const RopeArgs& args, int64_t row, int head, int i) {
  const int half = args.rope_dim / 2;
  float* x = args.x + row * args.x_stride + head * args.head_dim;
  float* first = x + (args.interleaved ? 2 * i : i);
  float* second = x + (args.interleaved ? 2 * i + 1 : i + half);
  const float* cos_sin = args.cos_sin + row * args.rope_dim;
  const float c = cos_sin[i], s = cos_sin[half + i];
  const float x0 = *first, x1 = *second;
  *first = Fma(x0, c, -(x1 * s));
  *second = Fma(x0, s, x1 * c);
}

// A thread for each pair.
DT_KERNEL void RopeKernel(RopeArgs args, int64_t begin) {
  const int half = args.rope_dim / 2;
  const int pair = ColumnOfThread<1>();
  if (pair >= args.num_heads * half) return;
  RotatePair(args, begin + BlockIndex(), pair / half, pair % half);
}

template <int kWidth>
DT_KERNEL void CopyRowsKernel(CopyRowsArgs args, int64_t begin) {
  const int64_t row = begin + BlockIndex();
  const int col = ColumnOfThread<kWidth>();
  if (col >= args.cols) return;
  const int64_t from = args.index != nullptr ? args.index[row] : row;
  StoreAligned(args.to + row * args.to_stride + col,
               LoadVector<Elements<kWidth>>(args.from + from * args.from_stride + col));
}

// *flag is raised where one of them is not finite.
template <int kWidth>
DT_KERNEL void FiniteKernel(const float* x, int64_t stride, int64_t cols, int32_t* flag) {
  const int col = ColumnOfThread<kWidth>();
  if (col >= cols) return;
  const auto v = LoadVector<Elements<kWidth>>(x + BlockIndex() * stride + col);
  bool finite = true;
  DT_UNROLL
  for (int i = 0; i < kWidth; ++i) finite = finite && (BitsOf(v.v[i]) & 0x7fffffffu) < 0x7f800000u;
  if (!finite) RaiseFlag(flag);
}

// The best column of a row so far.
struct Best {
  float v;
  int32_t id;  // kNone: none; kNan: nothing is better than what is not a number
  static constexpr int32_t kNone = -1, kNan = -2;
};

DT_DEVICE Best BetterOf(Best a, Best b) {
  if (a.id == Best::kNan || b.id == Best::kNone) return a;
  if (b.id == Best::kNan || a.id == Best::kNone) return b;
  return b.v > a.v || (b.v == a.v && b.id < a.id) ? b : a;
}

DT_DEVICE Best BestOfWarp(Best best) {
  for (int half = kWarp / 2; half > 0; half /= 2) {
    best = BetterOf(best, {ShuffleXor(best.v, half), ShuffleXor(best.id, half)});
  }
  return best;
}

constexpr int kArgMaxThreads = 1024;
constexpr int kArgMaxWarps = kArgMaxThreads / kWarp;
constexpr int kArgMaxLoads = 4;  // of a thread, under way at once

// The best of the columns that this thread has, which are looked at in ascending order.
template <int kWidth>
DT_DEVICE Best BestOfThread(const float* row, int cols) {
  constexpr int kStep = kArgMaxThreads * kWidth;
  const int own = ThreadIndex() * kWidth;
  if (own >= cols) return {0.0f, Best::kNone};
  Best best = {-__builtin_inff(), own};
  bool nan = false;
  for (int first = own; first < cols; first += kArgMaxLoads * kStep) {
    Elements<kWidth> x[kArgMaxLoads];
    DT_UNROLL
    for (int j = 0; j < kArgMaxLoads; ++j) {
      const int col = first + j * kStep;  // past the last one: once more the first
      x[j] = LoadVector<Elements<kWidth>>(row + (col < cols ? col : first));
    }
    DT_UNROLL
    for (int j = 0; j < kArgMaxLoads; ++j) {
      DT_UNROLL
      for (int i = 0; i < kWidth; ++i) {
        const float v = x[j].v[i];
        nan = nan || v != v;
        if (v > best.v) best = {v, first + j * kStep + i};
      }
    }
  }
  return {best.v, nan ? Best::kNan : best.id};
}

// A block for each row.
template <int kWidth>
DT_KERNEL_OF(kArgMaxThreads)
void ArgMaxKernel(const float* x, int64_t stride, int64_t cols, int32_t* best) {
  DT_SHARED(float, values, kArgMaxWarps);
  DT_SHARED(int32_t, ids, kArgMaxWarps);
  Best mine = BestOfThread<kWidth>(x + BlockIndex() * stride, static_cast<int>(cols));
  mine = BestOfWarp(mine);
  if (Lane() == 0) {
    values[WarpIndex()] = mine.v;
    ids[WarpIndex()] = mine.id;
  }
  SyncBlock();
  if (WarpIndex() != 0) return;
  static_assert(kArgMaxWarps == kWarp);
  mine = BestOfWarp({values[Lane()], ids[Lane()]});
  if (Lane() == 0) best[BlockIndex()] = mine.id == Best::kNan ? -1 : mine.id;
}
