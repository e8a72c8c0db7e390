// Activations to int8 with one f32 scale per block; kernels/ref/matmul.cc says what it computes.
// Included once, inside the instruction set's namespace.
//
// A block's largest magnitude becomes its scale. Small blocks go 16 at a time, a block per lane,
// since to reduce one vector to one number takes longer than to quantise its elements.

constexpr float kSmallestMax = 1e-30f;
constexpr int32_t kInfinityBits = 0x7f800000;

// Magnitudes of floats compare as their bits do, infinities and NaN above all numbers.
static inline I MaxMagnitudes(const float* x, int count) {
  I largest = ZeroI();
  for (int i = 0; i < count; i += 16) {
    largest = MaxI(largest, AndI(BitsOf(Load(x + i)), SetI1(0x7fffffff)));
  }
  return largest;
}

// At most 127 in magnitude, since inverse is 127 / the largest one.
static inline void StoreQuantized(const float* x, int count, F inverse, int8_t* q) {
  for (int i = 0; i < count; i += 16) StoreI8(q + i, ToNearestInt(Mul(Load(x + i), inverse)));
}

static inline void QuantizeBlock(const float* x, int block, int8_t* q, float* d) {
  const int32_t bits = MaxOfLanesI(MaxMagnitudes(x, block));
  float largest;
  __builtin_memcpy(&largest, &bits, sizeof(largest));
  const bool finite = bits < kInfinityBits;
  if (!finite || largest < kSmallestMax) {
    __builtin_memset(q, 0, static_cast<uint32_t>(block));
    *d = finite ? 0.0f : __builtin_nanf("");
    return;
  }
  *d = largest / 127.0f;
  StoreQuantized(x, block, Set1(127.0f / largest), q);
}

// 16 blocks of kBlock elements.
template <int kBlock>
static inline void QuantizeBlocks(const float* x, int8_t* q, float* d) {
  F lanes[16];
  for (int b = 0; b < 16; ++b) lanes[b] = FloatOf(MaxMagnitudes(x + kBlock * b, kBlock));
  Transpose16(lanes);
  I largest = BitsOf(lanes[0]);
  for (int i = 1; i < 16; ++i) largest = MaxI(largest, BitsOf(lanes[i]));
  const F magnitude = FloatOf(largest), lowest = Set1(kSmallestMax);
  const bool all_usual = MaxOfLanesI(largest) < kInfinityBits &&
                         EqualMask(Max(magnitude, lowest), magnitude) == 0xffff;
  if (!all_usual) {
    for (int b = 0; b < 16; ++b) QuantizeBlock(x + kBlock * b, kBlock, q + kBlock * b, d + b);
    return;
  }
  Store(d, Div(magnitude, Set1(127.0f)));
  alignas(64) float inverse[16];
  Store(inverse, Div(Set1(127.0f), magnitude));
  for (int b = 0; b < 16; ++b) {
    StoreQuantized(x + kBlock * b, kBlock, Set1(inverse[b]), q + kBlock * b);
  }
}

template <int kBlock>
static inline void QuantizeRow(const float* x, int64_t blocks, int8_t* q, float* d) {
  int64_t b = 0;
  for (; b + 16 <= blocks; b += 16) QuantizeBlocks<kBlock>(x + kBlock * b, q + kBlock * b, d + b);
  for (; b < blocks; ++b) QuantizeBlock(x + kBlock * b, kBlock, q + kBlock * b, d + b);
}

static void Quantize(const QuantizeArgs& args, int64_t begin, int64_t end) {
  const Activations& x = args.x;
  for (int64_t row = begin; row < end; ++row) {
    const float* from = x.f32 + row * x.f32_stride;
    int8_t* q = x.q + row * x.q_stride;
    float* d = x.d + row * x.d_stride;
    const int64_t blocks = x.cols / x.block;
    if (x.block == 32) {
      QuantizeRow<32>(from, blocks, q, d);
    } else if (x.block == 16) {
      QuantizeRow<16>(from, blocks, q, d);
    } else {
      for (int64_t b = 0; b < blocks; ++b) {
        QuantizeBlock(from + b * x.block, x.block, q + b * x.block, d + b);
      }
    }
    int16_t* bsum = x.bsum + row * x.bsum_stride;
    int64_t i = 0;
    for (; i + 64 <= x.cols; i += 64) StoreSumsOf16(bsum + i / 16, q + i);
    for (; i < x.cols; i += 16) {
      int sum = 0;
      for (int j = 0; j < 16; ++j) sum += q[i + j];
      bsum[i / 16] = static_cast<int16_t>(sum);
    }
  }
}
