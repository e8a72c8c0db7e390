// Products of quantised weights in P16 with int8 activations, for several rows: images and tiles
// (tile.inl.h) of all panels of a slice. Included once, inside the instruction set's namespace.

// --- blocks of 256

// Where few tiles use an image, and memory holds them up, a line of each next panel is asked for at
// every chunk while it is made: so many bytes. Otherwise the tiles have time for all of them.
static inline int64_t AskedWhileFilling(const TileTokens& tokens) {
  return kAsksByGroup && tokens.count <= 3 * kTileTokens ? 64 * kTileChunks : 0;
}

template <typename Format, int kChunk>
[[gnu::always_inline]] static inline void FillChunk(const uint8_t* panel_block, int p,
                                                    const uint8_t* next, TileImage* image) {
  __builtin_prefetch(next + 64 * kChunk, 0, 3);
  B w[8];
  Format::template Unpack<kChunk>(panel_block, w);
  DT_UNROLL for (int g = 0; g < 8; ++g) StoreB(image->weights[kChunk][g][p], w[g]);
}

template <typename Format>
[[gnu::noinline]] static void FillImage256(const uint8_t* panel_block, int p, const uint8_t* next,
                                           TileImage* image) {
  FillChunk<Format, 0>(panel_block, p, next, image);
  FillChunk<Format, 1>(panel_block, p, next, image);
  FillChunk<Format, 2>(panel_block, p, next, image);
  FillChunk<Format, 3>(panel_block, p, next, image);
  FillChunk<Format, 4>(panel_block, p, next, image);
  FillChunk<Format, 5>(panel_block, p, next, image);
  FillChunk<Format, 6>(panel_block, p, next, image);
  FillChunk<Format, 7>(panel_block, p, next, image);
  for (int s = 0; s < 256 / Format::kSubBlock; ++s) {
    StoreScale(image->scale[s][p], Format::Scale(panel_block, s));
  }
  for (int i = 0; i < kSumPairs<Format>; ++i) {
    StoreI(image->pairs[i][p], SumPairs<Format>(panel_block, i));
  }
  Store(image->d[0][p], Format::D(panel_block));
  if constexpr (Format::kHasMin) {
    Store(image->min[0][p],
          Mul(LoadHalves(panel_block + Format::P16::kMin), Set1(Format::kMinSign)));
  }
}

static inline void ZeroSums(int tokens, TileSums* sums) {
  for (int t = 0; t < tokens; ++t) {
    for (float(&sum)[16] : sums->sum[t]) Store(sum, Zero());
  }
}

// The sums of the tokens over all of k; `panels` are where each panel begins, and each of the next
// kTilePanels ones.
template <typename Format, typename Sum>
[[gnu::noinline]] static void SumBlocks256(const MatmulArgs& args, const uint8_t* const* panels,
                                           const TileTokens& tokens, TileImage* image,
                                           TileSums* sums) {
  ZeroSums(tokens.count, sums);
  const int64_t asked = AskedWhileFilling(tokens);
  for (int64_t block = 0; block < args.k / 256; ++block) {
    const bool last = block + 1 == args.k / 256;
    const uint8_t* next[kTilePanels];
    for (int p = 0; p < kTilePanels; ++p) {
      const uint8_t* const current = panels[p] + block * Format::P16::kBytes;
      next[p] = last ? panels[kTilePanels + p] : current + Format::P16::kBytes;
      FillImage256<Format>(current, p, asked > 0 ? next[p] : current, image);
      next[p] += asked;
    }
    ForTiles(tokens.count, next, Format::P16::kBytes - asked,
             [&]<int kTokens>(int t, const Ahead& ahead) {
               const TileActivations x = ActivationsOf<Format>(args, tokens.first + t, block);
               using Class = TileClassOf<Format>;
               if (last) PrefetchOutputs<kTokens>(args, tokens, t);
               TileBlock256<Class, kTokens, Sum>(*image, x, ahead, t, sums);
             });
  }
}

template <typename Format>
static inline void PanelsTimesTokens256(const MatmulArgs& args, const uint8_t* const* panels,
                                        const TileTokens& tokens, TileImage* image,
                                        TileSums* sums) {
  if constexpr (kRoundsQuietly) {
    _mm_setcsr(_mm_getcsr() & ~_MM_EXCEPT_INEXACT);
    SumBlocks256<Format, F>(args, panels, tokens, image, sums);
    const bool exact = (_mm_getcsr() & _MM_EXCEPT_INEXACT) == 0;
    asm volatile("" ::: "memory");  // nothing that rounds moves up here
    if (__builtin_expect(exact, 1)) return;
  }
  SumBlocks256<Format, I>(args, panels, tokens, image, sums);
}

// --- blocks of 32 (NVFP4: 16)

template <typename Format>
static inline void FillImageSmall(const uint8_t* panel_block, int chunks, int p,
                                  const uint8_t* next, TileImage* image) {
  constexpr int kBlocks = 32 / Format::kBlock, kGroups = Format::kBlock / 4;
  for (int i = 0; i < chunks * kBlocks; ++i) {
    __builtin_prefetch(next + 64 / kBlocks * i, 0, 3);
    B w[kGroups];
    Format::template Unpack<0>(panel_block, w);
    DT_UNROLL for (int g = 0; g < kGroups; ++g) {
      StoreB(image->weights[i / kBlocks][i % kBlocks * kGroups + g][p], w[g]);
    }
    Store(image->d[i][p], Format::D(panel_block));
    if constexpr (Format::kHasMin) {
      Store(image->min[i][p], LoadHalves(panel_block + Format::P16::kMin));
    }
    panel_block += Format::P16::kBytes;
  }
}

template <typename Format>
static inline void PanelsTimesTokensSmall(const MatmulArgs& args, const uint8_t* const* panels,
                                          const TileTokens& tokens, TileImage* image,
                                          TileSums* sums) {
  constexpr int kBlocks = 32 / Format::kBlock;  // of a chunk
  constexpr int kImageBlocks = kTileChunks * kBlocks;
  const int64_t num_blocks = args.k / Format::kBlock;
  const int64_t asked = AskedWhileFilling(tokens);
  for (int64_t block = 0; block < num_blocks; block += kImageBlocks) {
    const int64_t left = num_blocks - block;
    const int chunks = static_cast<int>(left < kImageBlocks ? left / kBlocks : kTileChunks);
    const bool last = left <= kImageBlocks;
    const uint8_t* next[kTilePanels];
    for (int p = 0; p < kTilePanels; ++p) {
      const uint8_t* const current = panels[p] + block * Format::P16::kBytes;
      next[p] = last ? panels[kTilePanels + p] : current + kImageBlocks * Format::P16::kBytes;
      FillImageSmall<Format>(current, chunks, p, asked > 0 ? next[p] : current, image);
      next[p] += asked;
    }
    ForTiles(tokens.count, next, kImageBlocks * Format::P16::kBytes - asked,
             [&]<int kTokens>(int t, const Ahead& ahead) {
               if (last) PrefetchOutputs<kTokens>(args, tokens, t);
               const TileActivations x = ActivationsOf<Format>(args, tokens.first + t, block);
               TileSmallBlocks<Format, kTokens>(*image, x, chunks, ahead, sums->sum + t);
             });
  }
}

// --- all panels of a slice

template <typename Format>
static void TileMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  TileImage image;
  TileSums sums;
  for (int64_t first = 0; first < args.rows; first += kTileGroup) {
    const int64_t left = args.rows - first;
    const int count = static_cast<int>(left < kTileGroup ? left : kTileGroup);
    for (int64_t panel = begin; panel < end; panel += kTilePanels) {
      const TileTokens tokens = {first, count, panel};
      const uint8_t* panels[2 * kTilePanels];
      for (int p = 0; p < 2 * kTilePanels; ++p) {
        const int64_t index = panel + p < end ? panel + p : panel;  // twice rather than not full
        panels[p] = args.w + index * panel_bytes;
      }
      if constexpr (Format::kBlock <= 32) {
        ZeroSums(tokens.count, &sums);
        PanelsTimesTokensSmall<Format>(args, panels, tokens, &image, &sums);
      } else {
        PanelsTimesTokens256<Format>(args, panels, tokens, &image, &sums);
      }
      for (int p = 0; p < kTilePanels && panel + p < end; ++p) {
        StoreSums(args, tokens.first, tokens.count, sums.sum[0][p], 16 * kTilePanels, panel + p);
      }
    }
  }
}
