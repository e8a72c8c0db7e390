// The KV cache: storing vectors, and blocks of it as f32; kernels/ref/attention.cc says what is
// stored. Included once, inside the instruction set's namespace.

struct F32Elements {
  static constexpr int kBytes = 4;
  static constexpr bool kConverts = false;
  static inline F Get(const uint8_t* p) { return Load(reinterpret_cast<const float*>(p)); }
  static inline void Put(uint8_t* p, F v) { Store(reinterpret_cast<float*>(p), v); }
};
struct F16Elements {
  static constexpr int kBytes = 2;
  static constexpr bool kConverts = true;
  static inline F Get(const uint8_t* p) { return LoadF16(reinterpret_cast<const uint16_t*>(p)); }
  static inline void Put(uint8_t* p, F v) { StoreF16(reinterpret_cast<uint16_t*>(p), v); }
};
struct Bf16Elements {
  static constexpr int kBytes = 2;
  static constexpr bool kConverts = true;
  static inline F Get(const uint8_t* p) { return LoadBf16(reinterpret_cast<const uint16_t*>(p)); }
  // base/float_convert.h, but that a NaN may lose its payload and become an infinity: whoever
  // stores asks for finite numbers.
  static inline void Put(uint8_t* p, F v) {
    const I bits = BitsOf(v);
    const I odd = AndI(ShiftRightI<16>(bits), SetI1(1));
    const I rounded = ShiftRightI<16>(AddI(bits, AddI(odd, SetI1(0x7fff))));
    StoreLow16(reinterpret_cast<uint16_t*>(p), rounded);
  }
};

// --- storing
// -------------------------------------------------------------------------------------------------

// n elements of kBytes from `from` on as elements d.. of the token in slot `slot`.
template <int kBytes>
static inline void PutElements(const KvPart& part, int slot, int d, const uint8_t* from, int n) {
  if (part.by_token) {
    __builtin_memcpy(part.data + ElementIndex(part, slot, d) * kBytes, from,
                     static_cast<size_t>(n) * kBytes);
    return;
  }
  for (int i = 0; i < n; ++i) {
    __builtin_memcpy(part.data + ElementIndex(part, slot, d + i) * kBytes, from + i * kBytes,
                     kBytes);
  }
}

// These return the largest magnitude, of which a NaN is larger than all numbers.
template <typename Elements>
static inline float StoreElements(const KvPart& part, int slot, const float* x) {
  I largest = ZeroI();
  for (int d = 0; d < part.dim; d += 16) {
    const int n = part.dim - d < 16 ? part.dim - d : 16;
    const F v = LoadUpTo(x + d, n, 0.0f);
    largest = MaxI(largest, MagnitudeBits(v));
    alignas(64) uint8_t stored[16 * Elements::kBytes];
    Elements::Put(stored, v);
    PutElements<Elements::kBytes>(part, slot, d, stored, n);
  }
  return FloatOfBits(MaxOfLanesI(largest));
}

static inline float StoreScaled(const KvPart& part, int slot, const float* x) {
  int32_t largest = 0;
  for (int d = 0; d < part.dim; d += kKvScaleElements) {
    const int n = part.dim - d < kKvScaleElements ? part.dim - d : kKvScaleElements;
    const F low = LoadUpTo(x + d, n, 0.0f);
    const F high = n > 16 ? LoadUpTo(x + d + 16, n - 16, 0.0f) : Zero();
    const int32_t bits = MaxOfLanesI(MaxI(MagnitudeBits(low), MagnitudeBits(high)));
    largest = bits > largest ? bits : largest;
    constexpr uint16_t kNanHalf = 0x7e00;
    const uint16_t half = bits < kInfinityBits
                              ? static_cast<uint16_t>(_cvtss_sh(FloatOfBits(bits) / 127.0f,
                                                                _MM_FROUND_TO_NEAREST_INT))
                              : kNanHalf;
    __builtin_memcpy(ScaleOf(part, slot, d), &half, sizeof(half));
    alignas(64) int8_t q[kKvScaleElements] = {};
    if (half != 0 && half < 0x7c00) {
      const F inverse = Set1(1.0f / _cvtsh_ss(half));
      const I min = SetI1(-127), max = SetI1(127);
      StoreI8(q, MaxI(min, MinI(max, ToNearestInt(Mul(low, inverse)))));
      StoreI8(q + 16, MaxI(min, MinI(max, ToNearestInt(Mul(high, inverse)))));
    }
    PutElements<1>(part, slot, d, reinterpret_cast<const uint8_t*>(q), n);
  }
  return FloatOfBits(largest);
}

// Whether what is stored is finite.
static inline bool StoreVector(const KvPart& part, int slot, const float* x) {
  float largest = 0;
  switch (part.type) {
    case KvType::kF32:
      largest = StoreElements<F32Elements>(part, slot, x);
      break;
    case KvType::kF16:
      largest = StoreElements<F16Elements>(part, slot, x);
      break;
    case KvType::kBF16:
      largest = StoreElements<Bf16Elements>(part, slot, x);
      break;
    case KvType::kQ8_0:
      largest = StoreScaled(part, slot, x);
      break;
  }
  return largest < StoredLimit(part.type);
}

static bool KvAppend(const KvAppendArgs& args, int64_t begin, int64_t end) {
  const KvShape& shape = args.kv.shape;
  bool finite = true;
  for (int64_t row = begin; row < end; ++row) {
    const SequenceRows& s = *FindSequence(args.sequences, args.num_sequences, row);
    const int position = s.position + static_cast<int>(row - s.row_begin);
    const int32_t block = s.blocks[position / kKvBlockTokens];
    const int slot = position % kKvBlockTokens;
    for (int head = 0; head < shape.num_heads; ++head) {
      const float* k = args.k + row * args.k_stride + int64_t{head} * shape.key_dim;
      finite &= StoreVector(KeyPart(args.kv, block, head), slot, k);
      if (shape.layout == KvLayout::kLatent) continue;
      const float* v = args.v + row * args.v_stride + int64_t{head} * shape.value_dim;
      finite &= StoreVector(ValuePart(args.kv, block, head), slot, v);
    }
  }
  return finite;
}

// --- blocks as f32
// -------------------------------------------------------------------------------------------------

static inline float HalfAt(const uint8_t* p) {
  uint16_t half;
  __builtin_memcpy(&half, p, sizeof(half));
  return _cvtsh_ss(half);
}

// Elements d .. d + n of a token (n up to 16, in one scale's range), zeros after them.
static inline F LoadOfToken(const KvPart& part, int slot, int d, int n) {
  const int64_t i = ElementIndex(part, slot, d);
  if (part.type == KvType::kF32) {
    return LoadUpTo(reinterpret_cast<const float*>(part.data) + i, n, 0.0f);
  }
  alignas(64) uint8_t copy[32] = {};
  const int bytes = part.type == KvType::kQ8_0 ? 1 : 2;
  const uint8_t* from = part.data + i * bytes;
  if (n < 16) {
    __builtin_memcpy(copy, from, static_cast<size_t>(n) * bytes);
    from = copy;
  }
  if (part.type == KvType::kF16) return F16Elements::Get(from);
  if (part.type == KvType::kBF16) return Bf16Elements::Get(from);
  return Mul(ToFloat(LoadI8(from)), Set1(HalfAt(ScaleOf(part, slot, d))));
}

// The first `dims` elements, whole vectors, of every token as f32 in rows of `dim`.
template <typename Elements>
static inline void WidenTokens(const KvPart& part, int dims, int64_t dim, float* to) {
  for (int slot = 0; slot < kKvBlockTokens; ++slot, to += dim) {
    const uint8_t* from = part.data + ElementIndex(part, slot, 0) * Elements::kBytes;
    for (int d = 0; d < dims; d += 16) Store(to + d, Elements::Get(from + d * Elements::kBytes));
  }
}

static inline void WidenScaledTokens(const KvPart& part, int dims, int64_t dim, float* to) {
  for (int slot = 0; slot < kKvBlockTokens; ++slot, to += dim) {
    const uint8_t* from = part.data + ElementIndex(part, slot, 0);
    F scale = Zero();
    for (int d = 0; d < dims; d += 16) {
      if (d % kKvScaleElements == 0) scale = Set1(HalfAt(ScaleOf(part, slot, d)));
      Store(to + d, Mul(ToFloat(LoadI8(from + d)), scale));
    }
  }
}

// The first value_dim elements of every token as f32, padded with zeros to rows of `dim`.
static inline void WidenValues(const KvPart& part, int value_dim, int64_t dim, float* to) {
  const int whole = value_dim / 16 * 16;
  switch (part.type) {
    case KvType::kF32:
      WidenTokens<F32Elements>(part, whole, dim, to);
      break;
    case KvType::kF16:
      WidenTokens<F16Elements>(part, whole, dim, to);
      break;
    case KvType::kBF16:
      WidenTokens<Bf16Elements>(part, whole, dim, to);
      break;
    case KvType::kQ8_0:
      WidenScaledTokens(part, whole, dim, to);
      break;
  }
  if (whole == value_dim) return;
  for (int slot = 0; slot < kKvBlockTokens; ++slot) {
    Store(to + slot * dim + whole, LoadOfToken(part, slot, whole, value_dim - whole));
  }
}

// The 16 keys from slot `slot` on, element d of each.
static inline F LoadOfKeys(const KvPart& part, int d, int slot) {
  const int64_t i = ElementIndex(part, slot, d);
  if (part.type == KvType::kF16) return F16Elements::Get(part.data + 2 * i);
  if (part.type == KvType::kBF16) return Bf16Elements::Get(part.data + 2 * i);
  return Mul(ToFloat(LoadI8(part.data + i)), F16Elements::Get(ScaleOf(part, slot, d)));
}

// The keys of a block that lie by dimension, of any type, as f32 [dim][kKvBlockTokens].
static inline void WidenKeys(const KvPart& part, float* to) {
  for (int d = 0; d < part.dim; ++d) {
    for (int slot = 0; slot < kKvBlockTokens; slot += 16) {
      Store(to + int64_t{d} * kKvBlockTokens + slot, LoadOfKeys(part, d, slot));
    }
  }
}
