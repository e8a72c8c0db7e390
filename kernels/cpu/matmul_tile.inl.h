// Products of quantised weights in P16 with int8 activations, for several rows.
// Included once, inside the instruction set's namespace, after matmul_quant.inl.h.
//
// 256 k of kTilePanels panels are unpacked once into an image in the first-level cache, which the
// rows ("tokens") of a group meet in tiles of up to kTileTokens: a register holds the sums of one
// token and one panel, so an operand that is loaded serves several products and no product waits
// for the one before it. What is computed, and in which order, is that of matmul_quant.inl.h: the
// integer sums are exact however they are grouped, and each float sum takes its blocks in the same
// order.
//
// Over a block of 256 the scaled sums of sub-blocks are summed as floats, since an fma scales and
// adds at once. That is exact while they stay below 2^24, which the weight type may promise
// (ExactChunks). Where float operations can round without raising the processor's flag
// (kRoundsQuietly), all others do, and the flag tells afterwards whether any sum was rounded; if
// so, they are made again from integers. Real weights and activations do not come near.

constexpr int kTileChunks = 8;                // chunks of 32 k in an image
constexpr int kTileGroup = 10 * kTileTokens;  // tokens whose sums and activations stay close

// Of kTilePanels panels: what Unpack gives, and the factors of each block or sub-block.
struct TileImage {
  alignas(64) uint8_t weights[kTileChunks][8][kTilePanels][64];
  alignas(64) float scale[2 * kTileChunks][kTilePanels][16];  // whole numbers
  alignas(64) int32_t pairs[kTileChunks][kTilePanels][16];    // kSumPairs
  alignas(64) float d[2 * kTileChunks][kTilePanels][16];
  alignas(64) float min[kTileChunks][kTilePanels][16];  // with its sign, if blocks are of 256
};

struct TileSums {
  alignas(64) float sum[kTileGroup][kTilePanels][16];
};

// Tokens [first, first + count) of the step.
struct TileTokens {
  int64_t first;
  int count;
};

// What the next image will be made of: a tile asks for a share of it at each chunk, so that memory
// delivers while the tiles compute.
struct Ahead {
  const uint8_t* panels[kTilePanels];  // what this tile asks for begins here
  int lines;                           // of each panel at each chunk
};
static inline void Prefetch(const Ahead& ahead, int chunk) {
  for (int i = chunk * ahead.lines; i < (chunk + 1) * ahead.lines; ++i) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
      __builtin_prefetch(ahead.panels[p] + 64 * i, 0, 3);
    }
  }
}
// For tile `tile` of `tiles`, if the next image is made of `bytes` of each panel, kTileChunks
// chunks a tile.
static inline Ahead AheadOf(const uint8_t* const* panels, int64_t bytes, int tile, int tiles) {
  Ahead ahead;
  const int chunks = tiles * kTileChunks;
  ahead.lines = (static_cast<int>(bytes / 64) + chunks) / chunks;
  const int64_t begin = int64_t{64} * ahead.lines * kTileChunks * tile;
  if (begin >= bytes) ahead.lines = 0;
  for (int p = 0; p < kTilePanels; ++p) ahead.panels[p] = panels[p] + begin;
  return ahead;
}

// Calls body.template operator()<kTokens>(first, ahead) for tiles of about the same size that cover
// [0, count).
template <int kTokens, typename Body>
static inline void RunTile(int tokens, int first, const Ahead& ahead, const Body& body) {
  if constexpr (kTokens > 0) {
    if (tokens == kTokens) return body.template operator()<kTokens>(first, ahead);
    RunTile<kTokens - 1>(tokens, first, ahead, body);
  }
}
template <typename Body>
static inline void ForTiles(int count, const uint8_t* const* next_panels, int64_t next_bytes,
                            const Body& body) {
  const int tiles = (count + kTileTokens - 1) / kTileTokens;
  for (int i = 0, first = 0; i < tiles; ++i) {
    const int next = count * (i + 1) / tiles;
    RunTile<kTileTokens>(next - first, first, AheadOf(next_panels, next_bytes, i, tiles), body);
    first = next;
  }
}

// --- blocks of 256

// How many chunks of 32 k can be summed as floats, each sub-block times its scale, whatever they
// hold. 0: none, the sums are integers.
template <typename Format>
static constexpr int ExactChunks() {
  constexpr int64_t kLargest = int64_t{32} * 127 * Format::kMaxWeight * Format::kMaxScale;
  if constexpr (kLargest > 0) {
    for (int chunks = kTileChunks; chunks > 1; chunks /= 2) {
      if (chunks * kLargest <= 1 << 24) return chunks;
    }
  }
  return 0;
}

[[gnu::always_inline]] static inline F AddScaled(F sum, I dot, const float* scale) {
  return Fma(ToFloat(dot), Load(scale), sum);
}
[[gnu::always_inline]] static inline I AddScaled(I sum, I dot, const float* scale) {
  return AddI(sum, MulI(dot, ToNearestInt(Load(scale))));
}
static inline void SetZero(F* v) { *v = Zero(); }
static inline void SetZero(I* v) { *v = ZeroI(); }
static inline I AsInt(F v) { return ToNearestInt(v); }
static inline I AsInt(I v) { return v; }
static inline F AsFloat(F v) { return v; }
static inline F AsFloat(I v) { return QuietToFloat(v); }

// Of a format: what a tile has to know of it. Formats of one class share the code of their tiles.
template <int kMaxWeightValue, int kSubBlockSize, bool kMin, int kNumPairs>
struct TileClass {
  static constexpr int kMaxWeight = kMaxWeightValue, kSubBlock = kSubBlockSize;
  static constexpr bool kHasMin = kMin;
  static constexpr int kPairs = kNumPairs;
};
template <typename Format>
using TileClassOf = TileClass<DotClass<Format::kMaxWeight>(), Format::kSubBlock, Format::kHasMin,
                              kSumPairs<Format>>;

// The activations of a tile's first token at a block, and how far those of the next one are.
struct TileActivations {
  const int8_t* q;
  const float* d;
  const int16_t* bsum;
  int64_t q_stride, d_stride, bsum_stride;
};

// sum[t][p] += over chunks [begin, begin + kChunks) of the image's sub-blocks scale * dot.
template <typename Class, int kChunks, int kTokens, typename Sum>
[[gnu::always_inline]] static inline void AddTileChunks(const TileImage& image, int begin,
                                                        const TileActivations& x,
                                                        const Ahead& ahead,
                                                        Sum (&sum)[kTokens][kTilePanels]) {
  constexpr int kSubs = 32 / Class::kSubBlock, kGroups = 8 / kSubs;
  for (int c = begin; c < begin + kChunks; ++c) {
    Prefetch(ahead, c);
    DT_UNROLL for (int s = 0; s < kSubs; ++s) {
      I dot[kTokens][kTilePanels];
      DT_UNROLL for (auto& of_token : dot) { DT_UNROLL for (I& d : of_token) d = ZeroI(); }
      TileDots<Class::kMaxWeight, kGroups, kTokens>(
          image.weights[c] + kGroups * s, x.q + 32 * c + Class::kSubBlock * s, x.q_stride, dot);
      DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
        DT_UNROLL for (int t = 0; t < kTokens; ++t) {
          sum[t][p] = AddScaled(sum[t][p], dot[t][p], image.scale[c * kSubs + s][p]);
        }
      }
    }
  }
}

// What FinishBlock256 does, for kTokens tokens: `products` are the sums of their scaled dot
// products, which are whole numbers whatever their type.
template <typename Class, int kTokens, typename Sum>
[[gnu::always_inline]] static inline void FinishTile(const TileImage& image,
                                                     const TileActivations& x,
                                                     const Sum (&products)[kTokens][kTilePanels],
                                                     float (*sums)[kTilePanels][16]) {
  alignas(16) int16_t room[kTokens][8];
  const int16_t* bsum[kTokens];
  I weighted[kTokens][kTilePanels];
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    bsum[t] = SumsOfSubBlocks<Class::kPairs>(x.bsum + t * x.bsum_stride, room[t]);
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
      weighted[t][p] = Class::kHasMin ? ZeroI() : AsInt(products[t][p]);
    }
  }
  DT_UNROLL for (int i = 0; i < Class::kPairs; ++i) {
    I pairs[kTilePanels];
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) pairs[p] = LoadI(image.pairs[i][p]);
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      const I two = SumsOfPair(bsum[t], i);
      DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
        weighted[t][p] = DotI16(weighted[t][p], two, pairs[p]);
      }
    }
  }
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    const F scale = Set1(x.d[t * x.d_stride]);
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
      const F whole = Class::kHasMin ? AsFloat(products[t][p]) : QuietToFloat(weighted[t][p]);
      F sum = QuietFma(whole, QuietMul(Load(image.d[0][p]), scale), Load(sums[t][p]));
      if constexpr (Class::kHasMin) {
        const F min = QuietMul(Load(image.min[0][p]), scale);
        sum = QuietFma(QuietToFloat(weighted[t][p]), min, sum);
      }
      Store(sums[t][p], sum);
    }
  }
}

// sums[t][p] += the image's block times kTokens tokens, its scaled dot products summed as Sum.
template <typename Class, int kTokens, typename Sum>
[[gnu::noinline]] static void TileBlock256(const TileImage& image, const TileActivations& x,
                                           const Ahead& ahead, float (*sums)[kTilePanels][16]) {
  Sum sum[kTokens][kTilePanels];
  DT_UNROLL for (auto& of_token : sum) { DT_UNROLL for (Sum& s : of_token) SetZero(&s); }
  AddTileChunks<Class, kTileChunks, kTokens>(image, 0, x, ahead, sum);
  FinishTile<Class, kTokens>(image, x, sum, sums);
}

// The same where fewer chunks, kSumChunks, can be summed as floats: whole[t][p] is their sum.
template <typename Class, int kSumChunks, int kTokens>
[[gnu::noinline]] static void TileWhole256(const TileImage& image, const TileActivations& x,
                                           const Ahead& ahead, int32_t (*whole)[kTilePanels][16]) {
  for (int begin = 0; begin < kTileChunks; begin += kSumChunks) {
    F sum[kTokens][kTilePanels];
    DT_UNROLL for (auto& of_token : sum) { DT_UNROLL for (F& s : of_token) SetZero(&s); }
    AddTileChunks<Class, kSumChunks, kTokens>(image, begin, x, ahead, sum);
    DT_UNROLL for (int t = 0; t < kTokens; ++t) {
      DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
        const I more = AsInt(sum[t][p]);
        StoreI(whole[t][p], begin == 0 ? more : AddI(LoadI(whole[t][p]), more));
      }
    }
  }
}
template <typename Class, int kTokens>
static inline void FinishWhole(const TileImage& image, const TileActivations& x,
                               const int32_t (*whole)[kTilePanels][16],
                               float (*sums)[kTilePanels][16]) {
  I all[kTokens][kTilePanels];
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) all[t][p] = LoadI(whole[t][p]);
  }
  FinishTile<Class, kTokens>(image, x, all, sums);
}

template <typename Format, int kChunk>
[[gnu::always_inline]] static inline void FillChunk(const uint8_t* panel_block, int p,
                                                    TileImage* image) {
  B w[8];
  Format::template Unpack<kChunk>(panel_block, w);
  DT_UNROLL for (int g = 0; g < 8; ++g) StoreB(image->weights[kChunk][g][p], w[g]);
}

template <typename Format>
[[gnu::noinline]] static void FillImage256(const uint8_t* panel_block, int p, TileImage* image) {
  FillChunk<Format, 0>(panel_block, p, image);
  FillChunk<Format, 1>(panel_block, p, image);
  FillChunk<Format, 2>(panel_block, p, image);
  FillChunk<Format, 3>(panel_block, p, image);
  FillChunk<Format, 4>(panel_block, p, image);
  FillChunk<Format, 5>(panel_block, p, image);
  FillChunk<Format, 6>(panel_block, p, image);
  FillChunk<Format, 7>(panel_block, p, image);
  for (int s = 0; s < 256 / Format::kSubBlock; ++s) {
    Store(image->scale[s][p], ToFloat(Format::Scale(panel_block, s)));
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
template <typename Format, int kSumChunks>
[[gnu::noinline]] static void SumBlocks256(const MatmulArgs& args, const uint8_t* const* panels,
                                           const TileTokens& tokens, TileImage* image,
                                           TileSums* sums) {
  ZeroSums(tokens.count, sums);
  for (int64_t block = 0; block < args.k / 256; ++block) {
    for (int p = 0; p < kTilePanels; ++p) {
      FillImage256<Format>(panels[p] + block * Format::P16::kBytes, p, image);
    }
    const bool last = block + 1 == args.k / 256;
    const uint8_t* next[kTilePanels];
    for (int p = 0; p < kTilePanels; ++p) {
      next[p] = last ? panels[kTilePanels + p] : panels[p] + (block + 1) * Format::P16::kBytes;
    }
    ForTiles(tokens.count, next, Format::P16::kBytes, [&]<int kTokens>(int t, const Ahead& ahead) {
      const int64_t row = tokens.first + t;
      const TileActivations x = {args.x.q + row * args.x.q_stride + 256 * block,
                                 args.x.d + row * args.x.d_stride + block,
                                 args.x.bsum + row * args.x.bsum_stride + 16 * block,
                                 args.x.q_stride,
                                 args.x.d_stride,
                                 args.x.bsum_stride};
      using Class = TileClassOf<Format>;
      if constexpr (kSumChunks == 0) {
        TileBlock256<Class, kTokens, I>(*image, x, ahead, sums->sum + t);
      } else if constexpr (kSumChunks == kTileChunks) {
        TileBlock256<Class, kTokens, F>(*image, x, ahead, sums->sum + t);
      } else {
        alignas(64) int32_t whole[kTokens][kTilePanels][16];
        TileWhole256<Class, kSumChunks, kTokens>(*image, x, ahead, whole);
        FinishWhole<Class, kTokens>(*image, x, whole, sums->sum + t);
      }
    });
  }
}

template <typename Format>
static inline void PanelsTimesTokens256(const MatmulArgs& args, const uint8_t* const* panels,
                                        const TileTokens& tokens, TileImage* image,
                                        TileSums* sums) {
  if constexpr (kRoundsQuietly) {
    _mm_setcsr(_mm_getcsr() & ~_MM_EXCEPT_INEXACT);
    SumBlocks256<Format, kTileChunks>(args, panels, tokens, image, sums);
    const bool exact = (_mm_getcsr() & _MM_EXCEPT_INEXACT) == 0;
    asm volatile("" ::: "memory");  // nothing that rounds moves up here
    if (__builtin_expect(exact, 1)) return;
    SumBlocks256<Format, 0>(args, panels, tokens, image, sums);
  } else {
    SumBlocks256<Format, ExactChunks<Format>()>(args, panels, tokens, image, sums);
  }
}

// --- blocks of 32 (NVFP4: 16)

template <typename Format>
static inline void FillImageSmall(const uint8_t* panel_block, int chunks, int p, TileImage* image) {
  constexpr int kBlocks = 32 / Format::kBlock, kGroups = Format::kBlock / 4;
  for (int i = 0; i < chunks * kBlocks; ++i) {
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

// Adds `chunks` chunks to the sums of kTokens tokens from `first` on; `block` is the first block,
// `prep` its index among those of `prepared`, whose tokens begin at t.
template <typename Format, int kTokens>
[[gnu::noinline]] static void TileSmallBlocks(const MatmulArgs& args, const TileImage& image,
                                              const BlockSums& prepared, int t, int prep,
                                              int64_t first, int64_t block, int chunks,
                                              const Ahead& ahead, float (*sums)[kTilePanels][16]) {
  constexpr int kBlocks = 32 / Format::kBlock, kGroups = Format::kBlock / 4;
  const int8_t* q = args.x.q + first * args.x.q_stride + Format::kBlock * block;
  const float* dx = args.x.d + first * args.x.d_stride + block;
  const int at = t * kBlocksPerPrep + prep;
  F sum[kTokens][kTilePanels];
  DT_UNROLL for (int i = 0; i < kTokens; ++i) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) sum[i][p] = Load(sums[i][p]);
  }
  for (int c = 0; c < chunks; ++c) {
    Prefetch(ahead, c);
    DT_UNROLL for (int b = 0; b < kBlocks; ++b) {
      const int index = c * kBlocks + b;
      I dot[kTokens][kTilePanels];
      DT_UNROLL for (int i = 0; i < kTokens; ++i) {
        I start = ZeroI();
        if constexpr (Format::kOffset != 0) {
          start = BroadcastDword(prepared.correction + at + i * kBlocksPerPrep + index);
        }
        DT_UNROLL for (int p = 0; p < kTilePanels; ++p) dot[i][p] = start;
      }
      TileDots<DotClass<Format::kMaxWeight>(), kGroups, kTokens>(
          image.weights[c] + kGroups * b, q + Format::kBlock * index, args.x.q_stride, dot);
      DT_UNROLL for (int i = 0; i < kTokens; ++i) {
        const F scale = Set1(dx[i * args.x.d_stride + index]);
        DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
          sum[i][p] = Fma(ToFloat(dot[i][p]), Mul(Load(image.d[index][p]), scale), sum[i][p]);
          if constexpr (Format::kHasMin) {
            const float x = Format::kMinSign * prepared.sum[at + i * kBlocksPerPrep + index];
            sum[i][p] = Fma(Set1(x), Mul(Load(image.min[index][p]), scale), sum[i][p]);
          }
        }
      }
    }
  }
  DT_UNROLL for (int i = 0; i < kTokens; ++i) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) Store(sums[i][p], sum[i][p]);
  }
}

template <typename Format>
static inline void PanelsTimesTokensSmall(const MatmulArgs& args, const uint8_t* const* panels,
                                          const TileTokens& tokens, TileImage* image,
                                          TileSums* sums) {
  constexpr int kBlocks = 32 / Format::kBlock;  // of a chunk
  constexpr int kImageBlocks = kTileChunks * kBlocks;
  const int64_t num_blocks = args.k / Format::kBlock;
  BlockSums prepared;
  for (int64_t block = 0; block < num_blocks; block += kImageBlocks) {
    const int64_t left = num_blocks - block;
    const int prep = static_cast<int>(block % kBlocksPerPrep);
    if (prep == 0) {
      PrepareSums<Format>(args, tokens.first, tokens.count, block,
                          static_cast<int>(left < kBlocksPerPrep ? left : kBlocksPerPrep),
                          &prepared);
    }
    const int chunks = static_cast<int>(left < kImageBlocks ? left / kBlocks : kTileChunks);
    for (int p = 0; p < kTilePanels; ++p) {
      FillImageSmall<Format>(panels[p] + block * Format::P16::kBytes, chunks, p, image);
    }
    const bool last = left <= kImageBlocks;
    const uint8_t* next[kTilePanels];
    for (int p = 0; p < kTilePanels; ++p) {
      next[p] =
          last ? panels[kTilePanels + p] : panels[p] + (block + kImageBlocks) * Format::P16::kBytes;
    }
    ForTiles(tokens.count, next, kImageBlocks * Format::P16::kBytes,
             [&]<int kTokens>(int t, const Ahead& ahead) {
               TileSmallBlocks<Format, kTokens>(args, *image, prepared, t, prep, tokens.first + t,
                                                block, chunks, ahead, sums->sum + t);
             });
  }
}

// --- all panels of a slice

template <typename Format>
static void TileMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  static_assert(kTileGroup <= kTokenGroup);
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  TileImage image;
  TileSums sums;
  for (int64_t first = 0; first < args.rows; first += kTileGroup) {
    const int64_t left = args.rows - first;
    const TileTokens tokens = {first, static_cast<int>(left < kTileGroup ? left : kTileGroup)};
    for (int64_t panel = begin; panel < end; panel += kTilePanels) {
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
