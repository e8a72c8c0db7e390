// Integer products on AVX2: vpmaddubsw sums pairs in int16, which are widened before they overflow.
// The names of simd_avx512.inl.h. Included once, after simd_avx2.inl.h.

constexpr int kTileTokens = 2;
constexpr int kTilePanels = 1;
constexpr int kFewRows = 1;
// With fewer pair sums in an int16 the tiles were measured up to 15 % slower than single tokens.
static constexpr bool TilesPay(int block, int max_weight) {
  return block == 256 && max_weight <= 15;
}

// Signed bytes stay signed: the product moves their sign to the activations.
constexpr int kSignedOffset = 0;
static inline B FromSigned(B v) { return v; }

static inline I DotI16(I acc, I x, I y) {
  return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a)),
          _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b))};
}

// Sums of two products in int16. They stay below 2^15: |activation| <= 127, and a weight is
// unsigned and at most 63, or signed and at most 128.
template <int kMaxWeight>
[[gnu::always_inline]] static inline __m256i PairProducts(__m256i w, __m256i x) {
  if constexpr (kMaxWeight > 127) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  } else {
    return _mm256_maddubs_epi16(w, x);
  }
}
template <int kMaxWeight, int kGroups>
[[gnu::always_inline]] static inline I DotGroups(const B* w, const int8_t* activations, I init) {
  // So many pair sums fit an int16 before they must be widened.
  constexpr int kFit = 32767 / (2 * 127 * (kMaxWeight > 127 ? 128 : kMaxWeight));
  constexpr int kChain = kFit < kGroups ? kFit : kGroups;
  static_assert(kGroups % kChain == 0);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int g = 0; g < kGroups; g += kChain) {
    __m256i x = BroadcastDword256(activations + 4 * g);
    __m256i a = PairProducts<kMaxWeight>(w[g].a, x), b = PairProducts<kMaxWeight>(w[g].b, x);
    for (int i = g + 1; i < g + kChain; ++i) {
      x = BroadcastDword256(activations + 4 * i);
      a = _mm256_add_epi16(a, PairProducts<kMaxWeight>(w[i].a, x));
      b = _mm256_add_epi16(b, PairProducts<kMaxWeight>(w[i].b, x));
    }
    init.a = _mm256_add_epi32(init.a, _mm256_madd_epi16(a, ones));
    init.b = _mm256_add_epi32(init.b, _mm256_madd_epi16(b, ones));
  }
  return init;
}

// Nothing; but sums through it are made one after another, where GCC would else begin more products
// than there are registers, to add them up as a tree.
[[gnu::always_inline]] static inline void KeepOrder(I* v) { asm("" : "+x"(v->a), "+x"(v->b)); }

// By how many pair sums fit.
template <int kMaxWeight>
static constexpr int DotClass() {
  return kMaxWeight <= 15 ? 15 : kMaxWeight <= 31 ? 31 : kMaxWeight <= 127 ? kMaxWeight : 255;
}
template <int kMaxWeight, int kGroups, int kTokens>
[[gnu::always_inline]] static inline void TileDots(const uint8_t (*w)[kTilePanels][64],
                                                   const int8_t* activations, int64_t stride,
                                                   I (*dot)[kTilePanels]) {
  constexpr int kFit = 32767 / (2 * 127 * (kMaxWeight > 127 ? 128 : kMaxWeight));
  constexpr int kChain = kFit < kGroups ? kFit : kGroups;
  static_assert(kGroups % kChain == 0 && kTilePanels == 1);
  const __m256i ones = _mm256_set1_epi16(1);
  DT_UNROLL for (int g = 0; g < kGroups; g += kChain) {
    I pairs[kTokens];
    DT_UNROLL for (int i = 0; i < kChain; ++i) {
      const B weights = LoadB(w[g + i][0]);
      DT_UNROLL for (int t = 0; t < kTokens; ++t) {
        const __m256i x = BroadcastDword256(activations + t * stride + 4 * (g + i));
        const I product = {PairProducts<kMaxWeight>(weights.a, x),
                           PairProducts<kMaxWeight>(weights.b, x)};
        pairs[t].a = i == 0 ? product.a : _mm256_add_epi16(pairs[t].a, product.a);
        pairs[t].b = i == 0 ? product.b : _mm256_add_epi16(pairs[t].b, product.b);
        KeepOrder(&pairs[t]);
      }
    }
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      dot[t][0].a = _mm256_add_epi32(dot[t][0].a, _mm256_madd_epi16(pairs[t].a, ones));
      dot[t][0].b = _mm256_add_epi32(dot[t][0].b, _mm256_madd_epi16(pairs[t].b, ones));
      if constexpr (kChain < kGroups) KeepOrder(&dot[t][0]);
    }
  }
}
