// Norms, activations, rotations and searches over vectors of 16 lanes; kernels/ref/elementwise.cc
// and rope.cc say what they compute. Included once, inside the instruction set's namespace.

constexpr float kLowestNormalPower = -125.0f;  // of e^r * 2^n: e^r is at least 0.7

// v * 2^n as TimesPowerOfTwo gives it. Products whose result is subnormal take Intel's processors
// 150 cycles, so such a result is made of its bits, which count multiples of 2^-149.
static inline F TimesSmallPowerOfTwo(F v, F n, F t) {
  const F normal = Set1(kLowestNormalPower);
  const F raise = WhereLess(n, normal, Set1(149.0f), Zero());
  const F raised = TimesPowerOfTwo(v, Add(n, raise), Add(t, raise));
  return WhereLess(n, normal, FloatOf(ToNearestInt(raised)), raised);
}

// exp(x), clamped to [lowest, kHighest] first. kSmall: it may be below 2^-126.
template <bool kSmall>
static inline F ExpFrom(float lowest, F x) {
  using namespace exp_constants;
  x = Max(Set1(lowest), Min(Set1(kHighest), x));
  const F t = Fma(x, Set1(kLog2E), Set1(kRound));
  const F n = Sub(t, Set1(kRound));
  F r = Fma(n, Set1(-kLn2High), x);
  r = Fma(n, Set1(-kLn2Low), r);
  F p = Set1(kC6);
  p = Fma(p, r, Set1(kC5));
  p = Fma(p, r, Set1(kC4));
  p = Fma(p, r, Set1(kC3));
  p = Fma(p, r, Set1(kC2));
  p = Fma(p, r, Set1(1.0f));
  p = Fma(p, r, Set1(1.0f));
  if constexpr (kSmall) {
    if (AnyLess(n, Set1(kLowestNormalPower))) [[unlikely]]
      return TimesSmallPowerOfTwo(p, n, t);
  }
  return TimesPowerOfTwo(p, n, t);
}

static inline F Exp(F x) { return ExpFrom</*kSmall=*/true>(exp_constants::kLowest, x); }

// Attention's weights: exp(x), and 0 below kLowestWeight.
static inline F AttentionWeight(F x) {
  using exp_constants::kLowestWeight;
  const F e = ExpFrom</*kSmall=*/false>(kLowestWeight, x);
  return WhereLess(x, Set1(kLowestWeight), Zero(), e);
}
static inline float ScalarAttentionWeight(float x) { return FirstLane(AttentionWeight(Set1(x))); }

static void RmsNorm(const RmsNormArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.x_stride;
    float* y = args.y + row * args.y_stride;
    F sum[2] = {Zero(), Zero()};
    for (int i = 0; i < args.cols; i += 16) {
      const F v = LoadUpTo(x + i, args.cols - i, 0.0f);
      sum[i / 16 % 2] = Fma(v, v, sum[i / 16 % 2]);
    }
    const float mean = TreeSum(Add(sum[0], sum[1])) / static_cast<float>(args.cols);
    const F inverse = Set1(1.0f / __builtin_sqrtf(mean + args.eps));
    for (int i = 0; i < args.cols; i += 16) {
      const int n = args.cols - i;
      const F scaled = Mul(LoadUpTo(x + i, n, 0.0f), inverse);
      F normed = Mul(scaled, LoadUpTo(args.weight + i, n, 0.0f));
      if (args.accumulate) normed = Add(LoadUpTo(y + i, n, 0.0f), normed);
      StoreUpTo(y + i, n, normed);
    }
  }
}

// 1 / (1 + exp(-x)) times `x_over`.
static inline F OverOnePlusExp(F x_over, F minus_x) {
  return Div(x_over, Add(Set1(1.0f), Exp(minus_x)));
}

// How many rows ahead of the one at hand are asked for: of a product's columns a row is a few
// lines, too few for the processor's own prefetches. Behind the last row nobody reads what was
// asked for, which costs nothing that was measured.
constexpr int kGatedAhead = 4;

template <typename Op>
static inline void ForGated(const GatedArgs& args, int64_t begin, int64_t end, const Op& op) {
  for (int64_t row = begin; row < end; ++row) {
    const float* gate = args.gate + row * args.in_stride;
    const float* up = args.up + row * args.in_stride;
    float* y = args.y + row * args.y_stride;
    for (int i = 0; i < args.cols; i += 16) {
      const int n = args.cols - i;
      __builtin_prefetch(gate + kGatedAhead * args.in_stride + i, 1, 3);
      __builtin_prefetch(up + kGatedAhead * args.in_stride + i, 0, 3);
      StoreUpTo(y + i, n, op(LoadUpTo(gate + i, n, 0.0f), LoadUpTo(up + i, n, 0.0f)));
    }
  }
}

static void SiluMul(const GatedArgs& args, int64_t begin, int64_t end) {
  ForGated(args, begin, end,
           [](F g, F u) { return Mul(OverOnePlusExp(g, Mul(g, Set1(-1.0f))), u); });
}

static void GeluMul(const GatedArgs& args, int64_t begin, int64_t end) {
  using namespace gated_constants;
  ForGated(args, begin, end, [](F g, F u) {
    const F t = Mul(Fma(Set1(kGeluC1), Mul(g, g), Set1(kGeluC0)), g);
    return Mul(OverOnePlusExp(g, Mul(t, Set1(-1.0f))), u);
  });
}

static void SwigluOai(const GatedArgs& args, int64_t begin, int64_t end) {
  using namespace gated_constants;
  ForGated(args, begin, end, [](F g, F u) {
    g = Min(Set1(kOaiLimit), g);
    u = Max(Set1(-kOaiLimit), Min(Set1(kOaiLimit), u));
    return Mul(OverOnePlusExp(g, Mul(g, Set1(-kOaiAlpha))), Add(u, Set1(1.0f)));
  });
}

static void Sigmoid(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const int count = static_cast<int>(n - i < 16 ? n - i : 16);
    const F minus_x = Mul(LoadUpTo(x + i, count, 0.0f), Set1(-1.0f));
    StoreUpTo(y + i, count, OverOnePlusExp(Set1(1.0f), minus_x));
  }
}

static void Combine(const CombineArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int32_t* sources = args.sources + row * args.slots;
    const float* weights = args.weights + row * args.slots;
    float* x = args.x + row * args.x_stride;
    for (int i = 0; i < args.cols; i += 16) {
      const int n = args.cols - i;
      F acc = Zero();
      for (int slot = 0; slot < args.slots; ++slot) {
        const F y = LoadUpTo(args.y + sources[slot] * args.y_stride + i, n, 0.0f);
        acc = Fma(Set1(weights[slot]), y, acc);
      }
      StoreUpTo(x + i, n, Add(LoadUpTo(x + i, n, 0.0f), acc));
    }
  }
}

// The pair (x0, x1) of a head, one at a time: what is left after whole vectors.
static inline void RotatePair(float* x0, float* x1, float c, float s) {
  const float a = *x0, b = *x1;
  *x0 = __builtin_fmaf(a, c, -(b * s));
  *x1 = __builtin_fmaf(a, s, b * c);
}

static inline void RopeInterleaved(float* x, const float* c, const float* s, int pairs) {
  int i = 0;
  for (; i + 8 <= pairs; i += 8) Store(x + 2 * i, RotatePairs(Load(x + 2 * i), c + i, s + i));
  for (; i < pairs; ++i) RotatePair(x + 2 * i, x + 2 * i + 1, c[i], s[i]);
}

static inline void RopeHalves(float* x, const float* c, const float* s, int pairs) {
  int i = 0;
  for (; i + 16 <= pairs; i += 16) {
    const F a = Load(x + i), b = Load(x + pairs + i), cc = Load(c + i), ss = Load(s + i);
    Store(x + i, Fma(a, cc, Mul(Mul(b, ss), Set1(-1.0f))));
    Store(x + pairs + i, Fma(a, ss, Mul(b, cc)));
  }
  for (; i < pairs; ++i) RotatePair(x + i, x + pairs + i, c[i], s[i]);
}

static void Rope(const RopeArgs& args, int64_t begin, int64_t end) {
  const int pairs = args.rope_dim / 2;
  for (int64_t row = begin; row < end; ++row) {
    const float* c = args.cos_sin + row * args.rope_dim;
    for (int head = 0; head < args.num_heads; ++head) {
      float* x = args.x + row * args.x_stride + int64_t{head} * args.head_dim;
      if (args.interleaved) {
        RopeInterleaved(x, c, c + pairs, pairs);
      } else {
        RopeHalves(x, c, c + pairs, pairs);
      }
    }
  }
}

static inline F MaxOf(const float* x, int n) {
  F max = Set1(-__builtin_inff());
  for (int i = 0; i < n; i += 16) max = Max(LoadUpTo(x + i, n - i, -__builtin_inff()), max);
  return max;
}

static float Softmax(const SoftmaxArgs& args) {
  const F max = Set1(MaxOfLanes(MaxOf(args.x, args.cols)));
  F sum[2] = {Zero(), Zero()};
  for (int i = 0; i < args.cols; i += 16) {
    const int n = args.cols - i;
    const F x = LoadUpTo(args.x + i, n, 0.0f);
    const F p = Exp(Mul(Sub(x, max), Set1(args.inv_temperature)));
    StoreUpTo(args.p + i, n, p);
    // Lanes past the end must add nothing.
    sum[i / 16 % 2] = Add(sum[i / 16 % 2], n >= 16 ? p : LoadPart(args.p + i, n, 0.0f));
  }
  return TreeSum(Add(sum[0], sum[1]));
}

static int32_t ArgMax(const float* x, int64_t n) {
  F max = Set1(-__builtin_inff());
  bool nan = false;
  for (int64_t i = 0; i < n; i += 16) {
    const F v = LoadUpTo(x + i, static_cast<int>(n - i < 16 ? n - i : 16), -__builtin_inff());
    nan = nan || AnyNan(v);
    max = Max(v, max);
  }
  if (nan) return -1;
  const F best = Set1(MaxOfLanes(max));
  for (int64_t i = 0; i < n; i += 16) {
    const int count = static_cast<int>(n - i < 16 ? n - i : 16);
    const uint32_t equal = EqualMask(LoadUpTo(x + i, count, -__builtin_inff()), best);
    if (equal != 0) return static_cast<int32_t>(i) + __builtin_ctz(equal);
  }
  return 0;
}

static bool AllFinite(const float* x, int64_t n) {
  I max = ZeroI();
  for (int64_t i = 0; i < n; i += 16) {
    const F v = LoadUpTo(x + i, static_cast<int>(n - i < 16 ? n - i : 16), 0.0f);
    max = MaxI(max, MagnitudeBits(v));
  }
  return MaxOfLanesI(max) < kInfinityBits;
}

static uint64_t ReadStream(const uint8_t* data, int64_t bytes) { return XorStream(data, bytes); }
