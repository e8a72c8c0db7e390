// Tiles whose sums fit the registers (AVX-512): tile.inl.h.
// Included once, inside the instruction set's namespace, after tile.inl.h.
//
// The scaled sums of sub-blocks of a block of 256 are summed as floats, since an fma scales and
// adds at once. That is exact while they stay below 2^24. The float operations that can round do so
// without raising the processor's flag (static rounding), all others do, and the flag tells
// afterwards whether any sum was rounded; if so, they are made again from integers. Real weights
// and activations do not come near.

[[gnu::always_inline]] static inline F AddScaled(F sum, I dot, const float* scale) {
  return Fma(ToFloat(dot), Load(scale), sum);
}
[[gnu::always_inline]] static inline I AddScaled(I sum, I dot, const float* scale) {
  return AddI(sum, MulI(dot, ToNearestInt(Load(scale))));
}

// sum[t][p] += over the image's sub-blocks scale * dot.
template <typename Class, int kTokens, typename Sum>
[[gnu::always_inline]] static inline void AddTileChunks(const TileImage& image,
                                                        const TileActivations& x,
                                                        const Ahead& ahead,
                                                        Sum (&sum)[kTokens][kTilePanels]) {
  constexpr int kSubs = 32 / Class::kSubBlock, kGroups = 8 / kSubs;
  for (int c = 0; c < kTileChunks; ++c) {
    DT_UNROLL for (int s = 0; s < kSubs; ++s) {
      I dot[kTokens][kTilePanels];
      DT_UNROLL for (auto& of_token : dot) { DT_UNROLL for (I& d : of_token) d = ZeroI(); }
      TileDots<Class::kMaxWeight, kGroups, kTokens>(
          image.weights[c] + kGroups * s, x.q + 32 * c + Class::kSubBlock * s, x.q_stride,
          dot, [&](int g) __attribute__((always_inline)) {
            AskAhead(ahead, 8 * c + kGroups * s + g);
          });
      DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
        DT_UNROLL for (int t = 0; t < kTokens; ++t) {
          sum[t][p] = AddScaled(sum[t][p], dot[t][p], image.scale[c * kSubs + s][p]);
        }
      }
    }
  }
}

// Adds the image's block times kTokens tokens, whose sums begin at token t; its scaled dot products
// are summed as Sum.
template <typename Class, int kTokens, typename Sum>
[[gnu::noinline]] static void TileBlock256(const TileImage& image, const TileActivations& x,
                                           const Ahead& ahead, int t, TileSums* sums) {
  Sum sum[kTokens][kTilePanels];
  DT_UNROLL for (auto& of_token : sum) { DT_UNROLL for (Sum& s : of_token) SetZero(&s); }
  AddTileChunks<Class, kTokens>(image, x, ahead, sum);
  FinishTile<Class, kTokens>(
      image, x, [&](int token, int p) { return sum[token][p]; }, sums->sum + t);
}

// Adds `chunks` chunks of the image to the sums of kTokens tokens.
template <typename Format, int kTokens>
[[gnu::noinline]] static void TileSmallBlocks(const TileImage& image, const TileActivations& x,
                                              int chunks, const Ahead& ahead,
                                              float (*sums)[kTilePanels][16]) {
  constexpr int kBlocks = 32 / Format::kBlock, kGroups = Format::kBlock / 4;
  F sum[kTokens][kTilePanels];
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) sum[t][p] = Load(sums[t][p]);
  }
  for (int c = 0; c < chunks; ++c) {
    DT_UNROLL for (int b = 0; b < kBlocks; ++b) {
      const int index = c * kBlocks + b;
      I dot[kTokens][kTilePanels];
      DT_UNROLL for (int t = 0; t < kTokens; ++t) {
        const I start = OffsetOfDot<Format>(x, index, t);
        DT_UNROLL for (int p = 0; p < kTilePanels; ++p) dot[t][p] = start;
      }
      TileDots<DotClass<Format::kMaxWeight>(), kGroups, kTokens>(
          image.weights[c] + kGroups * b, x.q + Format::kBlock * index, x.q_stride,
          dot, [&](int g) __attribute__((always_inline)) {
            AskAhead(ahead, 8 * c + kGroups * b + g);
          });
      DT_UNROLL for (int t = 0; t < kTokens; ++t) {
        DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
          sum[t][p] = AddBlock<Format>(image, x, index, t, p, dot[t][p], sum[t][p]);
        }
      }
    }
  }
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) Store(sums[t][p], sum[t][p]);
  }
}
