// Products of weights in blocks of 32 (NVFP4: 16) with many rows of int8 activations, in tile
// registers. Included once, inside the instruction set's namespace, after amx_tokens.inl.h and
// amx_image.inl.h.
//
// Each block has a float factor, so its sums leave the tile before the next block's are made.

// Blocks of a panel, weights with their signs.
struct SmallImage {
  alignas(64) int8_t weights[8][8][64];
  alignas(64) float d[8][16], min[8][16];
};

template <typename Format>
[[gnu::noinline]] static void FillSmallImage(const uint8_t* panel, int blocks, SmallImage* image) {
  constexpr int kGroups = Format::kBlock / 4;
  for (int b = 0; b < blocks; ++b, panel += Format::P16::kBytes) {
    B w[kGroups];
    Format::template Unpack<0>(panel, w);
    DT_UNROLL for (int g = 0; g < kGroups; ++g) {
      StoreB(reinterpret_cast<uint8_t*>(image->weights[b][g]),
             WithoutOffset<Format::kOffset>(w[g]));
    }
    Store(image->d[b], Format::D(panel));
    if constexpr (Format::kHasMin) Store(image->min[b], MinOf<Format>(panel));
  }
}

// Sums of a tile over each block of the image, and of its activations.
struct SmallSums {
  alignas(64) int32_t dots[8][kTokensOfTile][16];
  alignas(64) float x[kTokensOfTile][8];
};

// Asks for a third of block `block` of what is kPrefetchAhead after `ahead`, unless that is null:
// amx_image.inl.h says why not for more at once.
template <typename Format>
[[gnu::always_inline]] static inline void PrefetchThird(const uint8_t* ahead, int block,
                                                        int third) {
  constexpr int kLines = (Format::P16::kBytes / 64 + 2) / 3;
  if (ahead == nullptr) return;
  const uint8_t* from = ahead + kPrefetchAhead + Format::P16::kBytes * block;
  DT_UNROLL for (int i = 0; i < kLines; ++i) {
    __builtin_prefetch(from + 64 * (kLines * third + i), 0, 2);
  }
}

// Block kBlock of the image times a tile of tokens. Neighbours use different registers, so that
// none waits for the one before it.
template <typename Format, int kBlock>
[[gnu::always_inline]] static inline void MultiplyBlock(const SmallImage& image,
                                                        const TileActivations& x, SmallSums* sums) {
  constexpr int kSum = kSumTile + kBlock % 4, kTokens = kTokenTile + kBlock % 2;
  constexpr int kWeights = kWeightTile + kBlock % 2;
  LoadTile<kWeights>(image.weights[kBlock], 64);
  LoadTile<kTokens>(x.q + Format::kBlock * kBlock, x.q_stride);
  ZeroTile<kSum>();
  DotTiles<kSum, kTokens, kWeights, true>();
  StoreTile<kSum>(sums->dots[kBlock], 64);
}
template <typename Format, int kBlock = 0>
[[gnu::always_inline]] static inline void MultiplyBlocks(const SmallImage& image, int blocks,
                                                         const TileActivations& x,
                                                         const uint8_t* ahead, SmallSums* sums) {
  if constexpr (kBlock < 8) {
    if (kBlock >= blocks) return;
    MultiplyBlock<Format, kBlock>(image, x, sums);
    PrefetchThird<Format>(ahead, kBlock, 0);
    MultiplyBlocks<Format, kBlock + 1>(image, blocks, x, ahead, sums);
  }
}

// sums[t + i] += the products of all blocks with token t + i; `known`: 0 if they begin with these.
template <typename Format, int kTokens>
[[gnu::always_inline]] static inline void FinishSmallTokens(const SmallImage& image, int blocks,
                                                            const SmallSums& block_sums,
                                                            const TileActivations& x, int t,
                                                            const uint8_t* ahead, __mmask16 known,
                                                            float (*sums)[16]) {
  F sum[kTokens];
  DT_UNROLL for (int i = 0; i < kTokens; ++i) sum[i] = _mm512_maskz_loadu_ps(known, sums[t + i]);
  for (int b = 0; b < blocks; ++b) {
    PrefetchThird<Format>(ahead, b, t == 0 ? 1 : 2);
    const F d = Load(image.d[b]);
    DT_UNROLL for (int i = 0; i < kTokens; ++i) {
      const F scale = Set1(x.d[(t + i) * x.d_stride + b]);
      sum[i] = Fma(ToFloat(LoadI(block_sums.dots[b][t + i])), Mul(d, scale), sum[i]);
      if constexpr (Format::kHasMin) {
        sum[i] = Fma(Set1(block_sums.x[t + i][b]), Mul(Load(image.min[b]), scale), sum[i]);
      }
    }
  }
  DT_UNROLL for (int i = 0; i < kTokens; ++i) Store(sums[t + i], sum[i]);
}

// The sums of the activations of each block of 32.
[[gnu::always_inline]] static inline void SumBlocks(const int16_t* bsum, int blocks, float* sums) {
  const auto there = static_cast<__mmask16>((1u << (2 * blocks)) - 1);
  const __m256i of_32 =
      _mm256_madd_epi16(_mm256_maskz_loadu_epi16(there, bsum), _mm256_set1_epi16(1));
  _mm256_storeu_ps(sums, _mm256_cvtepi32_ps(of_32));
}

// Adds the products of a tile of `count` tokens to their sums.
template <typename Format>
[[gnu::noinline]] static void AddSmallBlocks(const SmallImage& image, int blocks, int count,
                                             const TileActivations& x, const uint8_t* ahead,
                                             __mmask16 known, float (*sums)[16]) {
  SmallSums block_sums;
  MultiplyBlocks<Format>(image, blocks, x, ahead, &block_sums);
  if constexpr (Format::kHasMin) {
    for (int t = 0; t < count; ++t) SumBlocks(x.bsum + t * x.bsum_stride, blocks, block_sums.x[t]);
  }
  constexpr int kAtOnce = 8;
  int t = 0;
  for (; t + kAtOnce <= count; t += kAtOnce) {
    FinishSmallTokens<Format, kAtOnce>(image, blocks, block_sums, x, t, ahead, known, sums);
  }
  for (; t < count; ++t) {
    FinishSmallTokens<Format, 1>(image, blocks, block_sums, x, t, nullptr, known, sums);
  }
}

template <typename Format>
static void AmxPanelSmall(const MatmulArgs& args, int64_t index, const uint8_t* panel,
                          TokenTiles* tokens) {
  const int64_t num_blocks = args.k / Format::kBlock;
  SmallImage image;
  for (int64_t block = 0; block < num_blocks; block += 8) {
    const int blocks = num_blocks - block < 8 ? static_cast<int>(num_blocks - block) : 8;
    FillSmallImage<Format>(panel, blocks, &image);
    const __mmask16 known = block == 0 ? 0 : 0xffff;
    for (int i = 0; i < tokens->tiles; ++i) {
      const TileActivations x =
          ActivationsOf<Format>(args, tokens->first + tokens->Begin(i), block);
      if (block + 8 >= num_blocks) PrefetchOutputs(args, *tokens, i, index);
      const uint8_t* ahead = i + 1 == tokens->tiles ? panel : nullptr;
      AddSmallBlocks<Format>(image, blocks, tokens->rows, x, ahead, known, tokens->sum[i]);
    }
    panel += blocks * Format::P16::kBytes;
  }
}

template <typename Format>
static void AmxPanelsSmall(const MatmulArgs& args, int64_t begin, int64_t end, TokenTiles* tokens) {
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  for (int64_t panel = begin; panel < end; ++panel) {
    AmxPanelSmall<Format>(args, panel, args.w + panel * panel_bytes, tokens);
    StoreSums(args, *tokens, panel);
  }
}
