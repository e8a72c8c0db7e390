// Activations to int8 with one f32 scale per block; kernels/ref/matmul.cc says what it computes.
// Included once, inside the instruction set's namespace.

static inline void QuantizeBlock(const float* x, int block, int8_t* q, float* d, int16_t* bsum) {
  I abs_max = ZeroI();
  for (int i = 0; i < block; i += 16) {
    abs_max = MaxI(abs_max, AndI(BitsOf(Load(x + i)), SetI1(0x7fffffff)));
  }
  // Magnitudes of floats compare as their bits do, infinities and NaN above all numbers.
  const int32_t bits = MaxOfLanesI(abs_max);
  float amax;
  __builtin_memcpy(&amax, &bits, sizeof(amax));
  const bool finite = bits < 0x7f800000;
  if (!finite || amax < 1e-30f) {
    __builtin_memset(q, 0, static_cast<uint32_t>(block));
    __builtin_memset(bsum, 0, static_cast<uint32_t>(block) / 8);
    *d = finite ? 0.0f : __builtin_nanf("");
    return;
  }
  *d = amax / 127.0f;
  const F inverse = Set1(127.0f / amax);
  for (int i = 0; i < block; i += 16) {
    const I rounded = ToNearestInt(Mul(Load(x + i), inverse));
    const I v = MaxI(SetI1(-127), MinI(SetI1(127), rounded));
    StoreI8(q + i, v);
    bsum[i / 16] = static_cast<int16_t>(SumOfLanesI(v));
  }
}

static void Quantize(const QuantizeArgs& args, int64_t begin, int64_t end) {
  const Activations& x = args.x;
  for (int64_t row = begin; row < end; ++row) {
    const float* from = x.f32 + row * x.f32_stride;
    for (int64_t b = 0; b < x.cols / x.block; ++b) {
      QuantizeBlock(from + b * x.block, x.block, x.q + row * x.q_stride + b * x.block,
                    x.d + row * x.d_stride + b, x.bsum + row * x.bsum_stride + b * x.block / 16);
    }
  }
}
