// Vectors of 16 lanes on AVX2, FMA and F16C, as pairs of 256-bit registers: the names of
// simd_avx512.inl.h, which says what each one does. Those of the integer products are in
// dot_avx2.inl.h and dot_avxvnni.inl.h.
//
// Included once, inside the instruction set's namespace; <immintrin.h> is included before.

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};
using B = I;  // 64 bytes: lanes 0..7 in a, 8..15 in b

#define DT_UNROLL _Pragma("GCC unroll 16")

constexpr int kBlocksPerStep = 1;
constexpr int kStreamTokens = 1;
constexpr int kFloatTokens = 3;
constexpr int kFloatRows = 1;
constexpr int kQueryTile = 2;
constexpr int kLargestQueryTile = 2;
constexpr int kFewQueries = 11;
constexpr int kValueVectors = 2;
constexpr int kLatentKeys = 4;

static inline F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline F Set1(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
static inline F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void Store(float* p, F v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
// All ones in the first n of the 8 lanes from `first` on.
static inline __m256i LaneMask(int n, int first) {
  const __m256i lane =
      _mm256_add_epi32(_mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), _mm256_set1_epi32(first));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
}
static inline F LoadPart(const float* p, int n, float fill) {
  const __m256i ma = LaneMask(n, 0), mb = LaneMask(n, 8);
  const __m256 f = _mm256_set1_ps(fill);
  return {_mm256_blendv_ps(f, _mm256_maskload_ps(p, ma), _mm256_castsi256_ps(ma)),
          _mm256_blendv_ps(f, _mm256_maskload_ps(p + 8, mb), _mm256_castsi256_ps(mb))};
}
static inline void StorePart(float* p, int n, F v) {
  _mm256_maskstore_ps(p, LaneMask(n, 0), v.a);
  _mm256_maskstore_ps(p + 8, LaneMask(n, 8), v.b);
}

static inline F Add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
static inline F Sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
static inline F Mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
static inline F Div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
static inline F Fma(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline F FmaBroadcast(const float* a, F b, F c) { return Fma(Set1(*a), b, c); }
static inline F Max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
static inline F Min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
static inline bool AnyLess(F x, F y) {
  return (_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)) |
          _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))) != 0;
}
static inline F WhereLess(F x, F y, F v, F w) {
  return {_mm256_blendv_ps(w.a, v.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(w.b, v.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
static inline bool AnyNan(F v) {
  return (_mm256_movemask_ps(_mm256_cmp_ps(v.a, v.a, _CMP_UNORD_Q)) |
          _mm256_movemask_ps(_mm256_cmp_ps(v.b, v.b, _CMP_UNORD_Q))) != 0;
}
static inline uint32_t EqualMask(F x, F y) {
  const int a = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ));
  const int b = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ));
  return static_cast<uint32_t>(a | b << 8);
}
static inline float MaxOfLanes(F v) {
  const __m256 half = _mm256_max_ps(v.a, v.b);
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  s = _mm_max_ss(s, _mm_shuffle_ps(s, s, 1));
  return _mm_cvtss_f32(s);
}
static inline float TreeSum(F v) {
  const __m256 half = _mm256_add_ps(v.a, v.b);
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
  return _mm_cvtss_f32(s);
}
static inline float FirstLane(F v) { return _mm256_cvtss_f32(v.a); }

static inline __m128i Load128(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i_u*>(p));
}
static inline __m256i Load256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i_u*>(p));
}
static inline F LoadF16(const uint16_t* p) {
  return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 8))};
}
static inline void StoreF16(uint16_t* p, F v) {
  _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p),
                   _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p + 8),
                   _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline __m256 WidenBf16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(Load128(p)), 16));
}
static inline F LoadBf16(const uint16_t* p) { return {WidenBf16(p), WidenBf16(p + 8)}; }

static inline I ZeroI() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
static inline I SetI1(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
static inline I LoadI(const int32_t* p) { return {Load256(p), Load256(p + 8)}; }
static inline void StoreI(int32_t* p, I v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), v.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p + 8), v.b);
}
static inline I AddI(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
static inline I SubI(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
static inline I MulI(I x, I y) {
  return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)};
}
static inline I AndI(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
[[gnu::always_inline]] static inline void KeepOrder(I* v) { asm("" : "+x"(v->a), "+x"(v->b)); }
static inline I MaxI(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
static inline I MinI(I x, I y) { return {_mm256_min_epi32(x.a, y.a), _mm256_min_epi32(x.b, y.b)}; }
template <int kBits>
static inline I ShiftRightI(I x) {
  return {_mm256_srai_epi32(x.a, kBits), _mm256_srai_epi32(x.b, kBits)};
}
template <int kBits>
static inline I ShiftLeftI(I x) {
  return {_mm256_slli_epi32(x.a, kBits), _mm256_slli_epi32(x.b, kBits)};
}
static inline I ShiftRightBy(I x, int bits) {
  return {_mm256_srli_epi32(x.a, bits), _mm256_srli_epi32(x.b, bits)};
}
static inline F ToFloat(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
constexpr bool kRoundsQuietly = false;
static inline F QuietMul(F x, F y) { return Mul(x, y); }
static inline F QuietFma(F x, F y, F z) { return Fma(x, y, z); }
static inline F QuietToFloat(I v) { return ToFloat(v); }
static inline I ToNearestInt(F v) { return {_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)}; }
static inline I BitsOf(F v) { return {_mm256_castps_si256(v.a), _mm256_castps_si256(v.b)}; }
static inline F FloatOf(I v) { return {_mm256_castsi256_ps(v.a), _mm256_castsi256_ps(v.b)}; }
// In two steps, of which only the last can round: 2^n alone may be too small for a float.
static inline F TimesPowerOfTwo(F v, F /*n*/, F t) {
  const I power = SubI(BitsOf(t), SetI1(exp_constants::kRoundBits));
  const I first = ShiftRightI<1>(power);
  const auto two_to = [](I n) { return FloatOf(ShiftLeftI<23>(AddI(n, SetI1(127)))); };
  return Mul(Mul(v, two_to(first)), two_to(SubI(power, first)));
}
static inline int32_t MaxOfLanesI(I v) {
  const __m256i half = _mm256_max_epi32(v.a, v.b);
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1));
  return _mm_cvtsi128_si32(s);
}
static inline I LoadU8(const uint8_t* p) {
  const __m128i v = Load128(p);
  return {_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))};
}
static inline I LoadI8(const uint8_t* p) {
  const __m128i v = Load128(p);
  return {_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))};
}
static inline void StoreI8(int8_t* p, I v) {
  const __m128i low =
      _mm_packs_epi32(_mm256_castsi256_si128(v.a), _mm256_extracti128_si256(v.a, 1));
  const __m128i high =
      _mm_packs_epi32(_mm256_castsi256_si128(v.b), _mm256_extracti128_si256(v.b, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), _mm_packs_epi16(low, high));
}
static inline I LoadI16(const int16_t* p) {
  return {_mm256_cvtepi16_epi32(Load128(p)), _mm256_cvtepi16_epi32(Load128(p + 8))};
}
static inline void StoreLow16(uint16_t* p, I v) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  const __m256i packed =
      _mm256_packus_epi32(_mm256_and_si256(v.a, mask), _mm256_and_si256(v.b, mask));
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
static inline __m256i BroadcastDword256(const void* p) {
  int32_t v;
  __builtin_memcpy(&v, p, sizeof(v));
  return _mm256_set1_epi32(v);
}
static inline void StorePairSums(int16_t* to, const int16_t* from) {
  const __m256i sums = _mm256_madd_epi16(
      _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(from)), _mm256_set1_epi16(1));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(sums, sums), 0x08);
  _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
static inline void StoreBytesAndSums(const I (&v)[4], int8_t* bytes, int16_t* sums) {
  for (int half = 0; half < 2; ++half) {
    const I x = v[2 * half], y = v[2 * half + 1];
    const __m256i low = _mm256_packs_epi32(x.a, x.b), high = _mm256_packs_epi32(y.a, y.b);
    const __m256i across = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), across);
    _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(bytes + 32 * half), all);
    const __m256i biased = _mm256_xor_si256(all, _mm256_set1_epi8(static_cast<char>(0x80)));
    const __m256i eights = _mm256_sad_epu8(biased, _mm256_setzero_si256());
    const __m256i sixteens = _mm256_add_epi64(eights, _mm256_bsrli_epi128(eights, 8));
    const __m256i unbiased = _mm256_sub_epi64(sixteens, _mm256_set1_epi64x(16 * 128));
    sums[2 * half] = static_cast<int16_t>(_mm256_extract_epi16(unbiased, 0));
    sums[2 * half + 1] = static_cast<int16_t>(_mm256_extract_epi16(unbiased, 8));
  }
}
static inline I BroadcastDword(const void* p) {
  return {BroadcastDword256(p), BroadcastDword256(p)};
}
static inline I BroadcastFirst(__m128i v) {
  const __m256i all = _mm256_broadcastd_epi32(v);
  return {all, all};
}
static inline I MulI16(I x, I y) {
  return {_mm256_mullo_epi16(x.a, y.a), _mm256_mullo_epi16(x.b, y.b)};
}

static inline void Transpose8(__m256* rows) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
  // quads[4 q + c]: of rows 4 q .. 4 q + 3 the columns c and 4 + c.
  for (int q = 0; q < 2; ++q) {
    for (int h = 0; h < 2; ++h) {
      const __m256 low = pairs[4 * q + h], high = pairs[4 * q + 2 + h];
      quads[4 * q + 2 * h] = _mm256_shuffle_ps(low, high, 0x44);
      quads[4 * q + 2 * h + 1] = _mm256_shuffle_ps(low, high, 0xee);
    }
  }
  for (int c = 0; c < 4; ++c) {
    rows[c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x20);
    rows[4 + c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x31);
  }
}
static inline void Transpose16(F* rows) {
  __m256 part[8];
  for (int r = 0; r < 8; ++r) part[r] = rows[r].a;
  Transpose8(part);
  __m256 upper[8], lower[8];
  for (int r = 0; r < 8; ++r) upper[r] = rows[r].b;
  for (int r = 0; r < 8; ++r) lower[r] = rows[8 + r].a;
  Transpose8(upper);
  Transpose8(lower);
  for (int r = 0; r < 8; ++r) rows[r] = {part[r], lower[r]};
  for (int r = 0; r < 8; ++r) part[r] = rows[8 + r].b;
  Transpose8(part);
  for (int r = 0; r < 8; ++r) rows[8 + r] = {upper[r], part[r]};
}

static inline __m256 RotateFourPairs(__m256 x, const float* c, const float* s) {
  const __m256i twice = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0);
  const __m256 cc = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(c)), twice);
  const __m256 ss = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(s)), twice);
  const __m256 cs = _mm256_blend_ps(cc, ss, 0xaa), sc = _mm256_blend_ps(ss, cc, 0xaa);
  return _mm256_fmaddsub_ps(_mm256_moveldup_ps(x), cs, _mm256_mul_ps(_mm256_movehdup_ps(x), sc));
}
static inline F RotatePairs(F x, const float* c, const float* s) {
  return {RotateFourPairs(x.a, c, s), RotateFourPairs(x.b, c + 4, s + 4)};
}

static inline B LoadB(const uint8_t* p) { return {Load256(p), Load256(p + 32)}; }
static inline void StoreB(uint8_t* p, B v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), v.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p + 32), v.b);
}
static inline B OrB(B x, B y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
template <int kShift, int kMask>
static inline B Bits(B v) {
  const __m256i mask = _mm256_set1_epi8(kMask);
  return {_mm256_and_si256(_mm256_srli_epi16(v.a, kShift), mask),
          _mm256_and_si256(_mm256_srli_epi16(v.b, kShift), mask)};
}
template <int kShift>
static inline B ShiftLeftB(B v) {
  return {_mm256_slli_epi16(v.a, kShift), _mm256_slli_epi16(v.b, kShift)};
}

using Mask = I;  // bytes of all ones or zero
static inline __m256i BitsAsBytes256(__m256i bits, __m256i from, __m256i bit) {
  return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(bits, from), bit), bit);
}
static inline Mask BitsAsBytes(B bits, int group) {
  const __m256i low_byte =
      _mm256_broadcastsi128_si256(_mm_set_epi8(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0));
  const __m256i from = _mm256_add_epi8(low_byte, _mm256_set1_epi8(static_cast<char>(group / 2)));
  const __m256i bit =
      _mm256_set1_epi32(static_cast<int32_t>(group % 2 == 0 ? 0x08040201u : 0x80402010u));
  return {BitsAsBytes256(bits.a, from, bit), BitsAsBytes256(bits.b, from, bit)};
}
static inline B AddWhere(B v, Mask mask, int value) {
  const __m256i plus = _mm256_set1_epi8(static_cast<char>(value));
  return {_mm256_add_epi8(v.a, _mm256_and_si256(mask.a, plus)),
          _mm256_add_epi8(v.b, _mm256_and_si256(mask.b, plus))};
}
// (v ^ m) - m is -v where m is all ones.
static inline B OffsetBySign(B v, Mask minus, int offset) {
  const __m256i base = _mm256_set1_epi8(static_cast<char>(offset));
  return {_mm256_add_epi8(base, _mm256_sub_epi8(_mm256_xor_si256(v.a, minus.a), minus.a)),
          _mm256_add_epi8(base, _mm256_sub_epi8(_mm256_xor_si256(v.b, minus.b), minus.b))};
}
static inline B LookUpB(const int8_t* table, B v) {
  const __m256i both = _mm256_broadcastsi128_si256(Load128(table));
  return {_mm256_shuffle_epi8(both, v.a), _mm256_shuffle_epi8(both, v.b)};
}

static inline B JoinHalves(__m256i low, __m256i high) { return {low, high}; }
static inline B LoadTwice(const uint8_t* p, const uint8_t* q) {
  return {_mm256_broadcastsi128_si256(Load128(p)), _mm256_broadcastsi128_si256(Load128(q))};
}
template <int kFirst, int kSecond, int kThird, int kFourth>
static inline B ShiftQuartersRight(B v) {
  return {_mm256_srlv_epi64(v.a, _mm256_set_epi64x(kSecond, kSecond, kFirst, kFirst)),
          _mm256_srlv_epi64(v.b, _mm256_set_epi64x(kFourth, kFourth, kThird, kThird))};
}
template <int kBit>
static inline B LanesWhereClear(const uint8_t* p, int32_t value) {
  const I bit = AndI(LoadU8(p), SetI1(1 << kBit));
  const __m256i zero = _mm256_setzero_si256();
  return AndI({_mm256_cmpeq_epi32(bit.a, zero), _mm256_cmpeq_epi32(bit.b, zero)}, SetI1(value));
}
static inline void StoreWords(uint16_t* to, B low, B high) {
  const auto store = [](uint16_t* at, __m256i l, __m256i h) {
    const __m256i first = _mm256_unpacklo_epi8(l, h), second = _mm256_unpackhi_epi8(l, h);
    auto* words = reinterpret_cast<__m256i_u*>(at);
    _mm256_storeu_si256(words, _mm256_permute2x128_si256(first, second, 0x20));
    _mm256_storeu_si256(words + 1, _mm256_permute2x128_si256(first, second, 0x31));
  };
  store(to, low.a, high.a);
  store(to + 32, low.b, high.b);
}
// Sixteen words in a register are too few to permute: every codebook is loaded.
constexpr int kPermutedEntries = 0;
constexpr int kGatheredEntries = 1 << 16;  // none
static void GatherFourGroups(const int8_t (*grid)[8], const uint16_t* index, B* w) = delete;
template <int kEntries>
static void LookUpNibbles(const uint16_t* codes, B low, B high, B* nibbles) = delete;

static inline uint64_t XorStream(const uint8_t* data, int64_t bytes) {
  __m256i sum[4] = {};
  for (int64_t i = 0; i + 128 <= bytes; i += 128) {
    for (int j = 0; j < 4; ++j) sum[j] = _mm256_xor_si256(sum[j], Load256(data + i + 32 * j));
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  uint64_t words[4], result = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(words), all);
  for (int64_t i = bytes / 128 * 128; i + 8 <= bytes; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, data + i, sizeof(word));
    result ^= word;
  }
  for (uint64_t word : words) result ^= word;
  return result;
}
