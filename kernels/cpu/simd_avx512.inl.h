// Vectors of 16 lanes on AVX-512 (F, BW, VL, DQ, VNNI): the vocabulary in which the kernel bodies
// of this folder are written. simd_avx2.inl.h gives the same names on pairs of 256-bit registers.
//
// Included once, inside the instruction set's namespace; <immintrin.h> is included before.

using F = __m512;   // 16 x f32
using I = __m512i;  // 16 x i32
using B = __m512i;  // 64 bytes: 16 lanes x 4 consecutive k

// Before loops over registers: only unrolled do arrays become registers.
#define DT_UNROLL _Pragma("GCC unroll 16")

// Tile sizes that fit 32 registers.
constexpr int kBlocksPerStep = 2;      // 32-k chunks of weights held in registers
constexpr int kStreamTokens = 2;       //   and tokens that meet them in turn
constexpr int kTileTokens = 6;         // products of several rows: activation rows per tile
constexpr int kTilePanels = 2;         //   and panels
constexpr bool kAsksByGroup = true;    //   which ask for memory at each group (tile.inl.h)
constexpr bool kPairProducts = false;  // else dot_avx2.inl.h
constexpr int kFewRows = 3;            // products of so few rows have code of their own
constexpr ManyRows kManyRows = ManyRows::kByProcessor;
constexpr int kFloatTokens = 4;       // matmul with float weights: activation rows per tile
constexpr int kFloatRows = 2;         //   and weight rows
constexpr int kQueryTile = 6;         // attention: queries per tile
constexpr int kLargestQueryTile = 8;  //   where there are no more, or twice as many
constexpr int kFewQueries = 16;       //   so many read keys and values as they are stored
constexpr int kValueVectors = 4;      //   vectors of the value dimension per tile
constexpr int kLatentKeys = 16;       //   of latent attention: keys per tile of 16 queries

static inline F Zero() { return _mm512_setzero_ps(); }
static inline F Set1(float v) { return _mm512_set1_ps(v); }
static inline F Load(const float* p) { return _mm512_loadu_ps(p); }
static inline void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
static inline __mmask16 FirstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }
// The first n lanes (n < 16) from memory, the others `fill`; memory past them is not touched.
static inline F LoadPart(const float* p, int n, float fill) {
  return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), FirstLanes(n), p);
}
static inline void StorePart(float* p, int n, F v) { _mm512_mask_storeu_ps(p, FirstLanes(n), v); }

static inline F Add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F Div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
// *a * b + c. Broadcast by the product itself: Zen 4's broadcasts into registers hold up
// conversions.
static inline F FmaBroadcast(const float* a, F b, F c) {
  asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(b), "m"(*a));
  return c;
}
// The same with the processor's flags left alone: static rounding suppresses them.
constexpr bool kRoundsQuietly = true;
static inline F QuietMul(F a, F b) {
  return _mm512_mul_round_ps(a, b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline F QuietFma(F a, F b, F c) {
  return _mm512_fmadd_round_ps(a, b, c, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline bool AnyLess(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ) != 0; }
// a < b ? x : y, so y where either is NaN.
static inline F WhereLess(F a, F b, F x, F y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
// v * 2^n, rounded once, for whole n from -152 to 129; t: n + exp_constants::kRound.
static inline F TimesPowerOfTwo(F v, F n, F /*t*/) { return _mm512_scalef_ps(v, n); }
// a > b ? a : b, so b where either is NaN.
static inline F Max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F Min(F a, F b) { return _mm512_min_ps(a, b); }
static inline bool AnyNan(F v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q) != 0; }
// Bit i: lane i of a equals lane i of b.
static inline uint32_t EqualMask(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline float MaxOfLanes(F v) { return _mm512_reduce_max_ps(v); }
// The halving tree 8, 4, 2, 1.
static inline float TreeSum(F v) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
  return _mm_cvtss_f32(s);
}
static inline float FirstLane(F v) { return _mm512_cvtss_f32(v); }

static inline F LoadF16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(p)));
}
static inline void StoreF16(uint16_t* p, F v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline F LoadBf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static inline I ZeroI() { return _mm512_setzero_si512(); }
static inline I SetI1(int32_t v) { return _mm512_set1_epi32(v); }
static inline I LoadI(const int32_t* p) { return _mm512_loadu_si512(p); }
static inline void StoreI(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
static inline I AddI(I a, I b) { return _mm512_add_epi32(a, b); }
static inline I SubI(I a, I b) { return _mm512_sub_epi32(a, b); }
static inline I MulI(I a, I b) { return _mm512_mullo_epi32(a, b); }
static inline I AndI(I a, I b) { return _mm512_and_si512(a, b); }
// Nothing; but sums through it are made one after another, where GCC would else begin more products
// than there are registers, to add them up as a tree.
[[gnu::always_inline]] static inline void KeepOrder(I* v) { asm("" : "+v"(*v)); }
static inline I MaxI(I a, I b) { return _mm512_max_epi32(a, b); }
static inline I MinI(I a, I b) { return _mm512_min_epi32(a, b); }
template <int kBits>
static inline I ShiftRightI(I a) {
  return _mm512_srai_epi32(a, kBits);
}
template <int kBits>
static inline I ShiftLeftI(I a) {
  return _mm512_slli_epi32(a, kBits);
}
// By the same number of bits in every lane, zeros in their place.
static inline I ShiftRightBy(I a, int bits) {
  return _mm512_srli_epi32(a, static_cast<unsigned>(bits));
}
static inline F ToFloat(I v) { return _mm512_cvtepi32_ps(v); }
static inline F QuietToFloat(I v) {
  return _mm512_cvt_roundepi32_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline I ToNearestInt(F v) { return _mm512_cvtps_epi32(v); }
static inline I BitsOf(F v) { return _mm512_castps_si512(v); }
static inline F FloatOf(I v) { return _mm512_castsi512_ps(v); }
static inline int32_t MaxOfLanesI(I v) { return _mm512_reduce_max_epi32(v); }
static inline I LoadU8(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p)));
}
static inline I LoadI8(const uint8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p)));
}
// Lanes, known to fit, as bytes.
static inline void StoreI8(int8_t* p, I v) {
  _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), _mm512_cvtepi32_epi8(v));
}
static inline I LoadI16(const int16_t* p) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(p)));
}
// The lower half of each lane.
static inline void StoreLow16(uint16_t* p, I v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), _mm512_cvtepi32_epi16(v));
}
// Of 16 int16 the 8 sums of neighbours, which fit.
static inline void StorePairSums(int16_t* to, const int16_t* from) {
  const __m256i sums = _mm256_madd_epi16(
      _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(from)), _mm256_set1_epi16(1));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(sums, sums), 0x08);
  _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
// 64 lanes, known to fit, as bytes, and the 4 sums of 16 of them. The bytes are summed before they
// are stored: read again at once, they would be waited for.
static inline void StoreBytesAndSums(const I (&v)[4], int8_t* bytes, int16_t* sums) {
  const __m512i across = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i low = _mm512_packs_epi32(v[0], v[1]), high = _mm512_packs_epi32(v[2], v[3]);
  const __m512i all = _mm512_permutexvar_epi32(across, _mm512_packs_epi16(low, high));
  _mm512_storeu_si512(bytes, all);
  const __m512i biased = _mm512_xor_si512(all, _mm512_set1_epi8(static_cast<char>(0x80)));
  const __m512i eights = _mm512_sad_epu8(biased, _mm512_setzero_si512());
  const __m512i sixteens = _mm512_add_epi64(eights, _mm512_bsrli_epi128(eights, 8));
  const __m512i unbiased = _mm512_sub_epi64(sixteens, _mm512_set1_epi64(16 * 128));
  const __m128i words = _mm512_cvtepi64_epi16(unbiased);  // every second one counts
  _mm_storel_epi64(reinterpret_cast<__m128i*>(sums), _mm_cvtepi32_epi16(words));
}
static inline I BroadcastDword(const void* p) {
  int32_t v;
  __builtin_memcpy(&v, p, sizeof(v));
  return _mm512_set1_epi32(v);
}
static inline I BroadcastFirst(__m128i v) { return _mm512_broadcastd_epi32(v); }
// The lower halves of the products of int16.
static inline I MulI16(I a, I b) { return _mm512_mullo_epi16(a, b); }
// acc + a.low * b.low + a.high * b.high over the int16 halves of each lane.
static inline I DotI16(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }

// Lane c of row r becomes lane r of row c.
static inline void Transpose16(F* rows) {
  F pairs[16], quads[16];
  for (int i = 0; i < 8; ++i) {
    pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
  // quads[4 q + c]: of rows 4 q .. 4 q + 3 the columns c, 4 + c, 8 + c, 12 + c.
  for (int q = 0; q < 4; ++q) {
    for (int h = 0; h < 2; ++h) {
      const F low = pairs[4 * q + h], high = pairs[4 * q + 2 + h];
      quads[4 * q + 2 * h] = _mm512_shuffle_ps(low, high, 0x44);
      quads[4 * q + 2 * h + 1] = _mm512_shuffle_ps(low, high, 0xee);
    }
  }
  for (int c = 0; c < 4; ++c) {
    const F low = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88);
    const F high = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88);
    const F low_odd = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xdd);
    const F high_odd = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_f32x4(low, high, 0x88);
    rows[8 + c] = _mm512_shuffle_f32x4(low, high, 0xdd);
    rows[4 + c] = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
    rows[12 + c] = _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd);
  }
}

// Pairs (x0, x1) of neighbouring lanes: even (c x0 - s x1), odd (s x0 + c x1), each
// fma(x0, ., -+ (x1 * .)); c and s hold one value per pair.
static inline F RotatePairs(F x, const float* c, const float* s) {
  const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512 cc = _mm512_castps256_ps512(_mm256_loadu_ps(c));
  const __m512 ss = _mm512_castps256_ps512(_mm256_loadu_ps(s));
  const __m512 cs = _mm512_permutex2var_ps(cc, low, ss);  // c0 s0 c1 s1 ...
  const __m512 sc = _mm512_permutex2var_ps(ss, low, cc);  // s0 c0 s1 c1 ...
  return _mm512_fmaddsub_ps(_mm512_moveldup_ps(x), cs, _mm512_mul_ps(_mm512_movehdup_ps(x), sc));
}

// Bytes of weights. The unsigned side of VNNI takes q + offset; the product corrects by the sums of
// the activations.
constexpr int kSignedOffset = 128;
static inline B LoadB(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline void StoreB(uint8_t* p, B v) { _mm512_storeu_si512(p, v); }
static inline B FromSigned(B v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
static inline B OrB(B a, B b) { return _mm512_or_si512(a, b); }
// (byte >> kShift) & kMask for every byte.
template <int kShift, int kMask>
static inline B Bits(B v) {
  return _mm512_and_si512(_mm512_srli_epi16(v, kShift), _mm512_set1_epi8(kMask));
}
// byte << kShift, with what the byte below it sends over.
template <int kShift>
static inline B ShiftLeftB(B v) {
  return _mm512_slli_epi16(v, kShift);
}
// Byte b of every lane by bit 4 * group + b of the lane (group 0..7).
using Mask = __mmask64;
static inline Mask BitsAsBytes(B bits, int group) {
  const __m512i low_byte =
      _mm512_broadcast_i32x4(_mm_set_epi8(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0));
  const __m512i from = _mm512_add_epi8(low_byte, _mm512_set1_epi8(static_cast<char>(group / 2)));
  const __m512i bit =
      _mm512_set1_epi32(static_cast<int32_t>(group % 2 == 0 ? 0x08040201u : 0x80402010u));
  return _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, from), bit);
}
// Bytes plus `value` where the mask is set.
static inline B AddWhere(B v, Mask mask, int value) {
  return _mm512_mask_add_epi8(v, mask, v, _mm512_set1_epi8(static_cast<char>(value)));
}
// Bytes offset - v where the mask is set, else offset + v.
static inline B OffsetBySign(B v, Mask minus, int offset) {
  const __m512i base = _mm512_set1_epi8(static_cast<char>(offset));
  return _mm512_mask_sub_epi8(_mm512_add_epi8(base, v), minus, base, v);
}
// table[byte], bytes below 16.
static inline B LookUpB(const int8_t* table, B v) {
  const __m128i one = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(table));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(one), v);
}

// --- codebooks (unpack_codebook.inl.h)

static inline B JoinHalves(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
// The 16 bytes at p twice, then those at q twice.
static inline B LoadTwice(const uint8_t* p, const uint8_t* q) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(q));
  return JoinHalves(_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high));
}
// Every 8 bytes of the four quarters >> so many bits.
template <int kFirst, int kSecond, int kThird, int kFourth>
static inline B ShiftQuartersRight(B v) {
  return _mm512_srlv_epi64(
      v, _mm512_set_epi64(kFourth, kFourth, kThird, kThird, kSecond, kSecond, kFirst, kFirst));
}
// Lanes of `value` where bit kBit of the row's byte at p is clear, else of 0.
template <int kBit>
static inline B LanesWhereClear(const uint8_t* p, int32_t value) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p));
  const __mmask16 clear = _mm_testn_epi8_mask(bytes, _mm_set1_epi8(static_cast<char>(1 << kBit)));
  return _mm512_maskz_set1_epi32(clear, value);
}
// 64 words: byte of low + 256 * byte of high.
static inline void StoreWords(uint16_t* to, B low, B high) {
  const auto words = [](__m256i l, __m256i h) {
    return _mm512_add_epi16(_mm512_cvtepu8_epi16(l), _mm512_slli_epi16(_mm512_cvtepu8_epi16(h), 8));
  };
  _mm512_storeu_si512(to, words(_mm512_castsi512_si256(low), _mm512_castsi512_si256(high)));
  _mm512_storeu_si512(to + 32,
                      words(_mm512_extracti64x4_epi64(low, 1), _mm512_extracti64x4_epi64(high, 1)));
}
// Codebooks of up to so many entries are permuted (NibbleCodebook), larger ones loaded: permuting
// takes kEntries / 64 permutations for 32 entries, and loads 64.
constexpr int kPermutedEntries = 1024;
template <int kEntries>
[[gnu::always_inline]] static inline __m512i PermuteWords(const uint16_t* table, __m512i index) {
  if constexpr (kEntries == 64) {
    return _mm512_permutex2var_epi16(_mm512_load_si512(table), index,
                                     _mm512_load_si512(table + 32));
  } else {
    constexpr int kHalf = kEntries / 2;
    const __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(kHalf));
    return _mm512_mask_blend_epi16(upper, PermuteWords<kHalf>(table, index),
                                   PermuteWords<kHalf>(table + kHalf, index));
  }
}
// Codebooks of 8 elements and so many entries or more are gathered where processor_gathers.
constexpr int kGatheredEntries = 1024;
static inline __m512i GatherEightEntries(const int8_t (*grid)[8], const uint16_t* index) {
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(index));
  return _mm512_i32gather_epi64(_mm256_cvtepu16_epi32(words), grid, 8);
}
// Of 4 groups x 16 rows: elements 0..3 and 4..7 of the entries of group g in w[2 g] and w[2 g + 1].
[[gnu::noinline]] static void GatherFourGroups(const int8_t (*grid)[8], const uint16_t* index,
                                               B* w) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (int g = 0; g < 4; ++g, index += 16) {
    const __m512i first = GatherEightEntries(grid, index);
    const __m512i second = GatherEightEntries(grid, index + 8);
    w[2 * g] = _mm512_permutex2var_epi32(first, even, second);
    w[2 * g + 1] = _mm512_permutex2var_epi32(first, odd, second);
  }
}
// Of 4 groups x 16 rows, entries low + 256 * high: the nibbles of their codes as bytes, nibbles[g]
// those of group g, a row per lane.
template <int kEntries>
[[gnu::always_inline]] static inline void LookUpNibbles(const uint16_t* codes, B low, B high,
                                                        B* nibbles) {
  // Rows 4 i .. 4 i + 3 of all groups into quarter i, where their codes will be spread.
  const __m512i across = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i mask = _mm512_set1_epi8(15);
  low = _mm512_permutexvar_epi32(across, low);
  high = kEntries > 256 ? _mm512_permutexvar_epi32(across, high) : ZeroI();
  const __m512i index[2] = {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
  DT_UNROLL for (int i = 0; i < 2; ++i) {
    const __m512i code = PermuteWords<kEntries>(codes, index[i]);
    const __m512i even = _mm512_and_si512(code, mask);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(code, 4), mask);
    nibbles[2 * i] = _mm512_unpacklo_epi16(even, odd);
    nibbles[2 * i + 1] = _mm512_unpackhi_epi16(even, odd);
  }
}

// init + the dot products of kGroups x 4 weights (bytes of at most kMaxWeight) with as many
// activations, one row per lane.
template <int kMaxWeight, int kGroups>
[[gnu::always_inline]] static inline I DotGroups(const B* w, const int8_t* activations, I init) {
  for (int g = 0; g < kGroups; ++g) {
    init = _mm512_dpbusd_epi32(init, w[g], BroadcastDword(activations + 4 * g));
  }
  return init;
}

// Only where kPairProducts.
template <int kMaxWeight, int kGroups>
static I AddScaledDot(const B* w, const int8_t* activations, I twice, I sum) = delete;
static I TwiceInLane(I v) = delete;
template <int kByte>
static I ByteTwiceInLane(B v) = delete;

// Weights of different kMaxWeight share the code of TileDots.
template <int kMaxWeight>
static constexpr int DotClass() {
  return 255;
}
// What a tile's dot products are multiplied with.
using TileScale = float;
static inline void StoreScale(TileScale* to, I scale) { Store(to, ToFloat(scale)); }
// dot[t][p] += the dot products of kGroups x 4 weights of panel p with as many activations of token
// t; those of the next token are `stride` bytes further. ask(g) goes before each group.
template <int kMaxWeight, int kGroups, int kTokens, typename Ask>
[[gnu::always_inline]] static inline void TileDots(const uint8_t (*w)[kTilePanels][64],
                                                   const int8_t* activations, int64_t stride,
                                                   I (*dot)[kTilePanels], const Ask& ask) {
  DT_UNROLL for (int g = 0; g < kGroups; ++g) {
    ask(g);
    B weights[kTilePanels];
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) weights[p] = LoadB(w[g][p]);
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      const B x = BroadcastDword(activations + t * stride + 4 * g);
      DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
        dot[t][p] = _mm512_dpbusd_epi32(dot[t][p], weights[p], x);
      }
    }
  }
}

static inline uint64_t XorStream(const uint8_t* data, int64_t bytes) {
  __m512i sum[4] = {ZeroI(), ZeroI(), ZeroI(), ZeroI()};
  for (int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int j = 0; j < 4; ++j) {
      sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(data + i + 64 * j));
    }
  }
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
  uint64_t words[8], result = 0;
  _mm512_storeu_si512(words, all);
  for (int64_t i = bytes / 256 * 256; i + 8 <= bytes; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, data + i, sizeof(word));
    result ^= word;
  }
  for (uint64_t word : words) result ^= word;
  return result;
}
