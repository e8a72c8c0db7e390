// Integer products on AVX-VNNI: vpdpbusd and vpdpwssd of 256 bits add four, or two, products of a
// lane to its int32. The names of simd_avx512.inl.h. Included once, after simd_avx2.inl.h.

// Three tokens would be a tile of sixteen registers: twelve sums and dots, two of weights. But the
// weights of a chunk come from the first-level cache with tiles or without, and single tokens were
// measured up to 15 % faster for every type (docs/benchmarks.md).
constexpr int kTileTokens = 3;
constexpr int kTilePanels = 1;
constexpr bool kAsksByGroup = true;
constexpr bool kPairProducts = false;
constexpr int kFewRows = 1;
constexpr ManyRows kManyRows = ManyRows::kStreams;

constexpr int kSignedOffset = 128;
static inline B FromSigned(B v) {
  const __m256i high = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(v.a, high), _mm256_xor_si256(v.b, high)};
}

static inline I DotI16(I acc, I x, I y) {
  return {_mm256_dpwssd_avx_epi32(acc.a, x.a, y.a), _mm256_dpwssd_avx_epi32(acc.b, x.b, y.b)};
}

// sum + the products of weights (unsigned) and activations (signed), four to a lane.
[[gnu::always_inline]] static inline I DotBytes(I sum, B w, __m256i x) {
  return {_mm256_dpbusd_avx_epi32(sum.a, w.a, x), _mm256_dpbusd_avx_epi32(sum.b, w.b, x)};
}

template <int kMaxWeight, int kGroups>
[[gnu::always_inline]] static inline I DotGroups(const B* w, const int8_t* activations, I init) {
  for (int g = 0; g < kGroups; ++g) {
    init = DotBytes(init, w[g], BroadcastDword256(activations + 4 * g));
  }
  return init;
}

// Only where kPairProducts.
template <int kMaxWeight, int kGroups>
static I AddScaledDot(const B* w, const int8_t* activations, I twice, I sum) = delete;
static I TwiceInLane(I v) = delete;
template <int kByte>
static I ByteTwiceInLane(B v) = delete;

template <int kMaxWeight>
static constexpr int DotClass() {
  return 255;
}
using TileScale = float;
static inline void StoreScale(TileScale* to, I scale) { Store(to, ToFloat(scale)); }
template <int kMaxWeight, int kGroups, int kTokens, typename Ask>
[[gnu::always_inline]] static inline void TileDots(const uint8_t (*w)[kTilePanels][64],
                                                   const int8_t* activations, int64_t stride,
                                                   I (*dot)[kTilePanels], const Ask& ask) {
  static_assert(kTilePanels == 1);
  DT_UNROLL for (int g = 0; g < kGroups; ++g) {
    ask(g);
    const B weights = LoadB(w[g][0]);
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      dot[t][0] = DotBytes(dot[t][0], weights, BroadcastDword256(activations + t * stride + 4 * g));
    }
  }
}
