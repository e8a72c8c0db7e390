// Integer products on AVX2: vpmaddubsw sums pairs in int16, which are widened before they overflow.
// The names of simd_avx512.inl.h. Included once, after simd_avx2.inl.h.

constexpr int kTileTokens = 4;
constexpr int kTilePanels = 1;
constexpr bool kAsksByGroup = false;
constexpr bool kPairProducts = true;  // AddScaledDot and ScaledTileDots are here
constexpr int kFewRows = 1;
constexpr ManyRows kManyRows = ManyRows::kTiles;

// Signed bytes stay signed: the product moves their sign to the activations.
constexpr int kSignedOffset = 0;
static inline B FromSigned(B v) { return v; }

static inline I DotI16(I acc, I x, I y) {
  acc.a = _mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a));
  acc.b = _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b));
  KeepOrder(&acc);
  return acc;
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
// So many pair sums fit an int16 before they must be widened, of kGroups.
template <int kMaxWeight, int kGroups>
static constexpr int ChainOf() {
  constexpr int kFit = 32767 / (2 * 127 * (kMaxWeight > 127 ? 128 : kMaxWeight));
  constexpr int kChain = kFit < kGroups ? kFit : kGroups;
  static_assert(kGroups % kChain == 0);
  return kChain;
}
// Pair sums of kChain groups, in int16.
[[gnu::always_inline]] static inline I AddPairSums(I x, I y) {
  return {_mm256_add_epi16(x.a, y.a), _mm256_add_epi16(x.b, y.b)};
}
template <int kMaxWeight, int kChain>
[[gnu::always_inline]] static inline I PairSumsOf(const B* w, const int8_t* activations) {
  I sums;
  DT_UNROLL for (int i = 0; i < kChain; ++i) {
    const __m256i x = BroadcastDword256(activations + 4 * i);
    const I product = {PairProducts<kMaxWeight>(w[i].a, x), PairProducts<kMaxWeight>(w[i].b, x)};
    sums = i == 0 ? product : AddPairSums(sums, product);
  }
  return sums;
}
// sum + the two int16 of each lane of `pairs`, each times that of `scale`.
[[gnu::always_inline]] static inline I AddPairs(I sum, I pairs, I scale) {
  return {_mm256_add_epi32(sum.a, _mm256_madd_epi16(pairs.a, scale.a)),
          _mm256_add_epi32(sum.b, _mm256_madd_epi16(pairs.b, scale.b))};
}
// Lanes that fit an int16, twice in each lane.
static inline I TwiceInLane(I v) {
  const __m256i low = _mm256_set_epi8(13, 12, 13, 12, 9, 8, 9, 8, 5, 4, 5, 4, 1, 0, 1, 0, 13, 12,
                                      13, 12, 9, 8, 9, 8, 5, 4, 5, 4, 1, 0, 1, 0);
  return {_mm256_shuffle_epi8(v.a, low), _mm256_shuffle_epi8(v.b, low)};
}
// Byte kByte of each lane likewise.
template <int kByte>
static inline I ByteTwiceInLane(B v) {
  const __m256i first = _mm256_set_epi8(-1, 12, -1, 12, -1, 8, -1, 8, -1, 4, -1, 4, -1, 0, -1, 0,
                                        -1, 12, -1, 12, -1, 8, -1, 8, -1, 4, -1, 4, -1, 0, -1, 0);
  const __m256i from = _mm256_or_si256(first, _mm256_set1_epi8(kByte));
  return {_mm256_shuffle_epi8(v.a, from), _mm256_shuffle_epi8(v.b, from)};
}

template <int kMaxWeight, int kGroups>
[[gnu::always_inline]] static inline I DotGroups(const B* w, const int8_t* activations, I init) {
  constexpr int kChain = ChainOf<kMaxWeight, kGroups>();
  const __m256i one = _mm256_set1_epi16(1);
  DT_UNROLL for (int g = 0; g < kGroups; g += kChain) {
    init = AddPairs(init, PairSumsOf<kMaxWeight, kChain>(w + g, activations + 4 * g), {one, one});
  }
  return init;
}
// sum + scale * the dot product: scales, twice in a lane, meet pair sums as those are widened,
// which costs nothing.
template <int kMaxWeight, int kGroups>
[[gnu::always_inline]] static inline I AddScaledDot(const B* w, const int8_t* activations, I twice,
                                                    I sum) {
  constexpr int kChain = ChainOf<kMaxWeight, kGroups>();
  DT_UNROLL for (int g = 0; g < kGroups; g += kChain) {
    sum = AddPairs(sum, PairSumsOf<kMaxWeight, kChain>(w + g, activations + 4 * g), twice);
    if constexpr (kChain < kGroups) KeepOrder(&sum);
  }
  return sum;
}

// By how many pair sums fit.
template <int kMaxWeight>
static constexpr int DotClass() {
  for (int bound : {15, 31}) {
    if (kMaxWeight <= bound) return bound;
  }
  return kMaxWeight;
}
// What a tile's dot products are multiplied with: lanes of two equal int16.
using TileScale = int32_t;
static inline void StoreScale(TileScale* to, I scale) { StoreI(to, TwiceInLane(scale)); }

// dots[t] = scale * the dot products of kGroups x 4 weights with as many activations of token t;
// those of the next token are `stride` bytes further. Either the pair sums of all tokens fill the
// registers, which they leave as dot products; or, where they must be widened before, the dot
// products do, to which those of one token after another are added.
template <int kMaxWeight, int kGroups, int kTokens>
[[gnu::always_inline]] static inline void ScaledTileDots(const uint8_t (*w)[kTilePanels][64],
                                                         const int8_t* activations, int64_t stride,
                                                         I scale, I (&dots)[kTokens]) {
  if constexpr (ChainOf<kMaxWeight, kGroups>() == kGroups) {
    I pairs[kTokens];
    DT_UNROLL for (int g = 0; g < kGroups; ++g) {
      const B weights = LoadB(w[g][0]);
      DT_UNROLL for (int t = 0; t < kTokens; ++t) {
        const I more = PairSumsOf<kMaxWeight, 1>(&weights, activations + t * stride + 4 * g);
        pairs[t] = g == 0 ? more : AddPairSums(pairs[t], more);
        KeepOrder(&pairs[t]);
      }
    }
    DT_UNROLL for (int t = 0; t < kTokens; ++t) dots[t] = AddPairs(ZeroI(), pairs[t], scale);
  } else {
    constexpr int kChain = ChainOf<kMaxWeight, 2>();
    DT_UNROLL for (int g = 0; g < kGroups; g += kChain) {
      B weights[kChain];
      DT_UNROLL for (int i = 0; i < kChain; ++i) weights[i] = LoadB(w[g + i][0]);
      DT_UNROLL for (int t = 0; t < kTokens; ++t) {
        const I pairs = PairSumsOf<kMaxWeight, kChain>(weights, activations + t * stride + 4 * g);
        dots[t] = AddPairs(g == 0 ? ZeroI() : dots[t], pairs, scale);
        KeepOrder(&dots[t]);
      }
    }
  }
}
