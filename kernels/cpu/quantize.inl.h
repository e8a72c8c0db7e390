// Activations to int8 with one f32 scale per block; kernels/ref/matmul.cc says what it computes.
// Included once, inside the instruction set's namespace.
//
// A block's largest magnitude becomes its scale. Small blocks go 16 at a time, a block per lane,
// since to reduce one vector to one number takes longer than to quantise its elements.

constexpr float kSmallestMax = 1e-30f;

static inline I MaxMagnitudes(const float* x, int count) {
  I largest = ZeroI();
  for (int i = 0; i < count; i += 16) largest = MaxI(largest, MagnitudeBits(Load(x + i)));
  return largest;
}

// q and bsum of x[0, count) times the inverse of each block, at most 127 in magnitude.
template <int kBlock>
static inline void StoreQuantized(const float* x, int count, const float* inverse, int8_t* q,
                                  int16_t* bsum) {
  const auto quantized = [&](int i) {
    return ToNearestInt(Mul(Load(x + i), Set1(inverse[i / kBlock])));
  };
  int i = 0;
  for (; i + 64 <= count; i += 64) {
    const I v[4] = {quantized(i), quantized(i + 16), quantized(i + 32), quantized(i + 48)};
    StoreBytesAndSums(v, q + i, bsum + i / 16);
  }
  for (; i < count; i += 16) {
    const I v[4] = {quantized(i), ZeroI(), ZeroI(), ZeroI()};
    alignas(64) int8_t bytes[64];
    int16_t sums[4];
    StoreBytesAndSums(v, bytes, sums);
    __builtin_memcpy(q + i, bytes, 16);
    bsum[i / 16] = sums[0];
  }
}

// The scale of a block and its inverse; false, and an inverse of 0, if its elements count as 0.
static inline bool BlockScale(const float* x, int block, float* d, float* inverse) {
  const int32_t bits = MaxOfLanesI(MaxMagnitudes(x, block));
  const float largest = FloatOfBits(bits);
  const bool finite = bits < kInfinityBits, usual = finite && largest >= kSmallestMax;
  *d = usual ? largest / 127.0f : finite ? 0.0f : __builtin_nanf("");
  *inverse = usual ? 127.0f / largest : 0.0f;
  return usual;
}
// Those of 16 blocks; false, and nothing stored, unless all are usual.
template <int kBlock>
static inline bool BlockScales16(const float* x, float* d, float* inverse) {
  F lanes[16];
  for (int b = 0; b < 16; ++b) lanes[b] = FloatOf(MaxMagnitudes(x + kBlock * b, kBlock));
  Transpose16(lanes);
  I largest = BitsOf(lanes[0]);
  for (int i = 1; i < 16; ++i) largest = MaxI(largest, BitsOf(lanes[i]));
  const F magnitude = FloatOf(largest);
  if (MaxOfLanesI(largest) >= kInfinityBits ||
      EqualMask(Max(magnitude, Set1(kSmallestMax)), magnitude) != 0xffff) {
    return false;
  }
  Store(d, Div(magnitude, Set1(127.0f)));
  Store(inverse, Div(Set1(127.0f), magnitude));
  return true;
}

// `count` blocks, at most kBlocks.
template <int kBlock, int kBlocks>
static inline void QuantizeBlocks(const float* x, int count, int8_t* q, float* d, int16_t* bsum) {
  alignas(64) float inverse[kBlocks];
  alignas(64) float cleared[kBlocks * kBlock];  // x, with zeros for blocks that count as such
  if constexpr (kBlocks == 16) {
    if (count == 16 && BlockScales16<kBlock>(x, d, inverse)) {
      return StoreQuantized<kBlock>(x, 16 * kBlock, inverse, q, bsum);
    }
  }
  const float* from = x;
  for (int b = 0; b < count; ++b) {
    if (BlockScale(x + kBlock * b, kBlock, d + b, inverse + b)) continue;
    if (from == x) {
      __builtin_memcpy(cleared, x, sizeof(float) * kBlock * static_cast<unsigned>(count));
      from = cleared;
    }
    __builtin_memset(cleared + kBlock * b, 0, sizeof(float) * kBlock);
  }
  StoreQuantized<kBlock>(from, count * kBlock, inverse, q, bsum);
}

// A row.
template <int kBlock, int kBlocks>
static inline void QuantizeRow(const float* x, int64_t blocks, int8_t* q, float* d, int16_t* bsum) {
  for (int64_t b = 0; b < blocks; b += kBlocks) {
    const int count = static_cast<int>(blocks - b < kBlocks ? blocks - b : kBlocks);
    QuantizeBlocks<kBlock, kBlocks>(x + kBlock * b, count, q + kBlock * b, d + b,
                                    bsum + kBlock / 16 * b);
  }
}

static void Quantize(const QuantizeArgs& args, int64_t begin, int64_t end) {
  const Activations& x = args.x;
  for (int64_t row = begin; row < end; ++row) {
    const float* from = x.f32 + row * x.f32_stride;
    int8_t* q = x.q + row * x.q_stride;
    float* d = x.d + row * x.d_stride;
    int16_t* bsum = x.bsum + row * x.bsum_stride;
    const int64_t blocks = x.cols / x.block;
    if (x.block == 256) {
      QuantizeRow<256, 1>(from, blocks, q, d, bsum);
    } else if (x.block == 32) {
      QuantizeRow<32, 16>(from, blocks, q, d, bsum);
    } else {
      QuantizeRow<16, 16>(from, blocks, q, d, bsum);
    }
  }
}
