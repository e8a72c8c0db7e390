// Tiles whose sums are in the first-level cache (AVX2): tile.inl.h.
// Included once, inside the instruction set's namespace, after tile.inl.h.
//
// There are half the registers, and products come as pairs in int16: those of a tile of one panel
// take the registers, and meet their scale as they are widened. Four tokens share a load of weights
// so; two, which is what fits together with their sums, are held up by loads.

// sum[t] = over the image's sub-blocks scale * dot.
template <typename Class, int kTokens>
[[gnu::always_inline]] static inline void AddTileChunks(const TileImage& image,
                                                        const TileActivations& x,
                                                        const Ahead& ahead, int32_t (*sum)[16]) {
  constexpr int kSubs = 32 / Class::kSubBlock, kGroups = 8 / kSubs;
  DT_UNROLL for (int t = 0; t < kTokens; ++t) StoreI(sum[t], ZeroI());
  for (int c = 0; c < kTileChunks; ++c) {
    AskAheadForChunk(ahead, c);
    DT_UNROLL for (int s = 0; s < kSubs; ++s) {
      I dots[kTokens];
      ScaledTileDots<Class::kMaxWeight, kGroups, kTokens>(
          image.weights[c] + kGroups * s, x.q + 32 * c + Class::kSubBlock * s, x.q_stride,
          LoadI(image.scale[c * kSubs + s][0]), dots);
      DT_UNROLL for (int t = 0; t < kTokens; ++t) StoreI(sum[t], AddI(LoadI(sum[t]), dots[t]));
      asm volatile("" ::: "memory");  // sums are not kept in registers, of which there are too few
    }
  }
}

// Adds the image's block times kTokens tokens, whose sums begin at token t.
template <typename Class, int kTokens, typename /*Sum*/>
[[gnu::noinline]] static void TileBlock256(const TileImage& image, const TileActivations& x,
                                           const Ahead& ahead, int t, TileSums* sums) {
  int32_t(*const products)[16] = sums->products;
  AddTileChunks<Class, kTokens>(image, x, ahead, products);
  FinishTile<Class, kTokens>(
      image, x, [&](int token, int) { return LoadI(products[token]); }, sums->sum + t);
}

// Adds `chunks` chunks of the image to the sums of kTokens tokens.
template <typename Format, int kTokens>
[[gnu::noinline]] static void TileSmallBlocks(const TileImage& image, const TileActivations& x,
                                              int chunks, const Ahead& ahead,
                                              float (*sums)[kTilePanels][16]) {
  constexpr int kBlocks = 32 / Format::kBlock, kGroups = Format::kBlock / 4;
  const I one = TwiceInLane(SetI1(1));
  for (int c = 0; c < chunks; ++c) {
    AskAheadForChunk(ahead, c);
    DT_UNROLL for (int b = 0; b < kBlocks; ++b) {
      const int index = c * kBlocks + b;
      I dots[kTokens];
      ScaledTileDots<DotClass<Format::kMaxWeight>(), kGroups, kTokens>(
          image.weights[c] + kGroups * b, x.q + Format::kBlock * index, x.q_stride, one, dots);
      DT_UNROLL for (int t = 0; t < kTokens; ++t) {
        const I dot = AddI(dots[t], OffsetOfDot<Format>(x, index, t));
        Store(sums[t][0], AddBlock<Format>(image, x, index, t, 0, dot, Load(sums[t][0])));
      }
    }
  }
}
