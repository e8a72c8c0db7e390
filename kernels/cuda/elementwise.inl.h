// Ops on rows: norms, activation quantisation, gated activations, rope, the sum over experts. Each
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

DT_DEVICE float RoundToNearestEven(float v) { return v + 0x1.8p+23f - 0x1.8p+23f; }

// The warp of this thread, counted over the grid.
DT_DEVICE int64_t GlobalWarp() {
  return int64_t{BlockIndex()} * (BlockThreads() / kWarp) + WarpIndex();
}
DT_DEVICE int64_t GlobalThread() { return int64_t{BlockIndex()} * BlockThreads() + ThreadIndex(); }

// A warp for each row: lane i has the partial sum of the columns that are i mod 32.
DT_KERNEL void RmsNormKernel(RmsNormArgs args, int64_t begin, int64_t end) {
  const int64_t row = begin + GlobalWarp();
  if (row >= end) return;
  const float* x = args.x + row * args.x_stride;
  float* y = args.y + row * args.y_stride;
  float partial = 0.0f;
  for (int i = Lane(); i < args.cols; i += kWarp) partial = Fma(x[i], x[i], partial);
  const float mean = TreeSum(partial) / static_cast<float>(args.cols);
  const float inverse = 1.0f / SquareRoot(mean + args.eps);
  for (int i = Lane(); i < args.cols; i += kWarp) {
    const float normed = x[i] * inverse * args.weight[i];
    y[i] = args.accumulate ? y[i] + normed : normed;
  }
}

// The lanes of a block of activations, each with `kPer` consecutive ones.
template <int kBlock>
struct QuantizeShape {
  static constexpr int kPer = kBlock == 256 ? 8 : 1;
  static constexpr int kLanes = kBlock / kPer;
  static constexpr int kBlocksPerWarp = kWarp / kLanes;
};

DT_DEVICE int QuantizeOne(float x, float inverse) {
  const float v = RoundToNearestEven(x * inverse);
  return static_cast<int>(v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v);
}

// The sum over the lanes of 16 consecutive elements, kPer to a lane.
template <int kPer>
DT_DEVICE int SumOf16(int sum) {
  for (int half = 8 / kPer; half > 0; half /= 2) sum += ShuffleXor(sum, half);
  return sum;
}

template <int kBlock>
DT_KERNEL void QuantizeKernel(Activations x, int64_t begin, int64_t end) {
  using Shape = QuantizeShape<kBlock>;
  constexpr float kSmallestAmax = 1e-30f;
  const int lane = Lane() % Shape::kLanes;
  const int64_t blocks = x.cols / kBlock;
  const int64_t index = GlobalWarp() * Shape::kBlocksPerWarp + Lane() / Shape::kLanes;
  const bool inside = index < (end - begin) * blocks;
  const int64_t row = begin + (inside ? index / blocks : 0);
  const int64_t col = (inside ? index % blocks : 0) * kBlock + lane * Shape::kPer;
  float values[Shape::kPer];
  uint32_t abs_max = 0;
  for (int i = 0; i < Shape::kPer; ++i) {
    values[i] = inside ? x.f32[row * x.f32_stride + col + i] : 0.0f;
    abs_max = Larger(abs_max, BitsOf(values[i]) & 0x7fffffffu);
  }
  for (int half = Shape::kLanes / 2; half > 0; half /= 2) {
    abs_max = Larger(abs_max, ShuffleXor(abs_max, half));
  }
  const float amax = FloatOf(abs_max);
  const bool normal = amax >= kSmallestAmax && abs_max < 0x7f800000u;
  const float inverse = normal ? 127.0f / amax : 0.0f;
  int q[Shape::kPer];
  int sum = 0;
  for (int i = 0; i < Shape::kPer; ++i) {
    q[i] = normal ? QuantizeOne(values[i], inverse) : 0;
    sum += q[i];
  }
  sum = SumOf16<Shape::kPer>(sum);
  if (!inside) return;
  for (int i = 0; i < Shape::kPer; ++i) x.q[row * x.q_stride + col + i] = static_cast<int8_t>(q[i]);
  if (col % 16 == 0) x.bsum[row * x.bsum_stride + col / 16] = static_cast<int16_t>(sum);
  if (lane != 0) return;
  const float none = amax < kSmallestAmax ? 0.0f : FloatOf(0x7fc00000u);
  x.d[row * x.d_stride + col / kBlock] = normal ? amax / 127.0f : none;
}

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

// A thread for each element.
template <typename Op>
DT_KERNEL void GatedKernel(GatedArgs args, int64_t begin, int64_t end) {
  const int64_t index = GlobalThread();
  if (index >= (end - begin) * args.cols) return;
  const int64_t row = begin + index / args.cols, i = index % args.cols;
  args.y[row * args.y_stride + i] =
      Op::Of(args.gate[row * args.in_stride + i], args.up[row * args.in_stride + i]);
}

DT_KERNEL void SigmoidKernel(const float* x, float* y, int64_t n) {
  const int64_t i = GlobalThread();
  if (i < n) y[i] = 1.0f / (1.0f + Exp(-x[i]));
}

// A thread for each element.
DT_KERNEL void CombineKernel(CombineArgs args, int64_t begin, int64_t end) {
  const int64_t index = GlobalThread();
  if (index >= (end - begin) * args.cols) return;
  const int64_t row = begin + index / args.cols, i = index % args.cols;
  float acc = 0.0f;
  for (int64_t slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
    acc = Fma(args.weights[slot], args.y[args.sources[slot] * args.y_stride + i], acc);
  }
  args.x[row * args.x_stride + i] += acc;
}

// A thread for each pair.
DT_KERNEL void RopeKernel(RopeArgs args, int64_t begin, int64_t end) {
  const int half = args.rope_dim / 2;
  const int64_t pairs = int64_t{args.num_heads} * half;
  const int64_t index = GlobalThread();
  if (index >= (end - begin) * pairs) return;
  const int64_t row = begin + index / pairs;
  const int head = static_cast<int>(index % pairs / half), i = static_cast<int>(index % half);
  float* x = args.x + row * args.x_stride + int64_t{head} * args.head_dim;
  float* first = x + (args.interleaved ? 2 * i : i);
  float* second = x + (args.interleaved ? 2 * i + 1 : i + half);
  const float c = args.cos_sin[row * args.rope_dim + i];
  const float s = args.cos_sin[row * args.rope_dim + half + i];
  const float x0 = *first, x1 = *second;
  *first = Fma(x0, c, -(x1 * s));
  *second = Fma(x0, s, x1 * c);
}

// A thread for each element.
DT_KERNEL void CopyRowsKernel(CopyRowsArgs args, int64_t begin, int64_t end) {
  const int64_t index = GlobalThread();
  if (index >= (end - begin) * args.cols) return;
  const int64_t row = begin + index / args.cols, i = index % args.cols;
  const int64_t from = args.index != nullptr ? args.index[row] : row;
  args.to[row * args.to_stride + i] = args.from[from * args.from_stride + i];
}

// A thread for each element. *flag is raised where one of them is not finite.
DT_KERNEL void FiniteKernel(const float* x, int64_t stride, int64_t rows, int64_t cols,
                            int32_t* flag) {
  const int64_t index = GlobalThread();
  if (index >= rows * cols) return;
  const float v = x[index / cols * stride + index % cols];
  if ((BitsOf(v) & 0x7fffffffu) >= 0x7f800000u) RaiseFlag(flag);
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

constexpr int kArgMaxThreads = 512;
constexpr int kArgMaxWarps = kArgMaxThreads / kWarp;

// A block for each row.
DT_KERNEL void ArgMaxKernel(const float* x, int64_t stride, int64_t cols, int32_t* best) {
  DT_SHARED(float, values, kArgMaxWarps);
  DT_SHARED(int32_t, ids, kArgMaxWarps);
  const float* row = x + BlockIndex() * stride;
  Best mine = {0.0f, Best::kNone};
  for (int64_t i = ThreadIndex(); i < cols; i += BlockThreads()) {
    const float v = row[i];
    mine = BetterOf(mine, {v, v != v ? Best::kNan : static_cast<int32_t>(i)});
  }
  mine = BestOfWarp(mine);
  if (Lane() == 0) {
    values[WarpIndex()] = mine.v;
    ids[WarpIndex()] = mine.id;
  }
  SyncBlock();
  if (WarpIndex() != 0) return;
  mine = {0.0f, Best::kNone};
  if (Lane() < kArgMaxWarps) mine = {values[Lane()], ids[Lane()]};
  mine = BestOfWarp(mine);
  if (Lane() == 0) best[BlockIndex()] = mine.id == Best::kNan ? -1 : mine.id;
}
