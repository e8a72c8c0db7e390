// Products of quantised weights in P16 with int8 activations, for several rows: what a tile is.
// Included once, inside the instruction set's namespace, after matmul_quant.inl.h.
//
// 256 k of kTilePanels panels are unpacked once into an image in the first-level cache, which the
// rows ("tokens") of a group meet in tiles of up to kTileTokens, so that an operand that is loaded
// serves several products and no product waits for the one before it. What is computed, and in
// which order, is that of matmul_quant.inl.h: the integer sums are exact however they are grouped,
// and each float sum takes its blocks in the same order.
//
// How a tile is computed is its instruction set's: tile_registers.inl.h or tile_memory.inl.h, which
// come next; matmul_tile.inl.h makes the images and runs the tiles.

constexpr int kTileChunks = 8;                // chunks of 32 k in an image
constexpr int kTileGroups = 8 * kTileChunks;  // of 4 k
constexpr int kTileGroup = 20 * kTileTokens;  // tokens that meet an image before the next is made

// Of kTilePanels panels: what Unpack gives, and the factors of each block or sub-block.
struct TileImage {
  alignas(64) uint8_t weights[kTileChunks][8][kTilePanels][64];
  alignas(64) TileScale scale[2 * kTileChunks][kTilePanels][16];
  alignas(64) int32_t pairs[kTileChunks][kTilePanels][16];  // kSumPairs
  alignas(64) float d[2 * kTileChunks][kTilePanels][16];
  alignas(64) float min[kTileChunks][kTilePanels][16];  // with its sign, if blocks are of 256
};

struct TileSums {
  alignas(64) float sum[kTileGroup][kTilePanels][16];
  alignas(64) int32_t products[kTileTokens][16];  // of a tile, in tile_memory.inl.h
};

// Tokens [first, first + count) of the step, whose sums are y's from column 16 * panel on.
struct TileTokens {
  int64_t first;
  int count;
  int64_t panel;
};
// Asks for what StoreSums will write of tokens [t, t + kTokens) of them, which is often a page for
// every token.
template <int kTokens>
[[gnu::always_inline]] static inline void PrefetchOutputs(const MatmulArgs& args,
                                                          const TileTokens& tokens, int t) {
  const float* y = args.y + (tokens.first + t) * args.y_stride + 16 * tokens.panel;
  DT_UNROLL for (int i = 0; i < kTokens; ++i, y += args.y_stride) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) __builtin_prefetch(y + 16 * p, 1, 3);
  }
}

// What the next image will be made of. Tiles ask for it bit by bit, beside each group of products,
// so that memory delivers while they compute: many lines at once hold up loads. No branch is worth
// it: a line is asked for several times where there are more groups than lines.
struct Ahead {
  const uint8_t* panels[kTilePanels];  // where this tile's share begins
  int64_t step;                        // bytes for each group
};
// Whoever calls it in a lambda has that inlined: GCC drops a call of what only prefetches.
[[gnu::always_inline]] static inline void AskAhead(const Ahead& ahead, int64_t group) {
  DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
    __builtin_prefetch(ahead.panels[p] + group * ahead.step, 0, 3);
  }
}
// All of a chunk's groups at once, in whole lines (kAsksByGroup false): for tiles that loads and
// instructions hold up more than memory does.
[[gnu::always_inline]] static inline void AskAheadForChunk(const Ahead& ahead, int chunk) {
  const int64_t lines = ahead.step / 8;
  for (int64_t i = chunk * lines; i < (chunk + 1) * lines; ++i) {
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
      __builtin_prefetch(ahead.panels[p] + 64 * i, 0, 3);
    }
  }
}
// For tile `tile` of `tiles`, if the next image is made of `bytes` of each panel: a line for each
// group at most.
static inline Ahead AheadOf(const uint8_t* const* panels, int64_t bytes, int tile, int tiles) {
  constexpr int64_t kUnit = kAsksByGroup ? 1 : 8;  // 8: whole lines for a chunk
  const int64_t units = kTileGroups * kUnit * tiles;
  const int64_t each = (bytes + units - 1) / units * kUnit;
  const int64_t step = each < 64 ? each : 64;
  const int64_t begin = kTileGroups * step * tile;
  Ahead ahead;
  ahead.step = begin < bytes ? step : 0;
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

// Those of `row` and the rows after it.
template <typename Format>
static inline TileActivations ActivationsOf(const MatmulArgs& args, int64_t row, int64_t block) {
  const Activations& x = args.x;
  return {x.q + row * x.q_stride + Format::kBlock * block,
          x.d + row * x.d_stride + block,
          x.bsum + row * x.bsum_stride + Format::kBlock / 16 * block,
          x.q_stride,
          x.d_stride,
          x.bsum_stride};
}

// What FinishBlock256 does, for kTokens tokens: products(t, p) is the sum of their scaled dot
// products, a whole number whatever its type.
template <typename Class, int kTokens, typename Products>
[[gnu::always_inline]] static inline void FinishTile(const TileImage& image,
                                                     const TileActivations& x,
                                                     const Products& products,
                                                     float (*sums)[kTilePanels][16]) {
  alignas(16) int16_t room[kTokens][8];
  const int16_t* bsum[kTokens];
  I weighted[kTokens][kTilePanels];
  DT_UNROLL for (int t = 0; t < kTokens; ++t) {
    bsum[t] = SumsOfSubBlocks<Class::kPairs>(x.bsum + t * x.bsum_stride, room[t]);
    DT_UNROLL for (int p = 0; p < kTilePanels; ++p) {
      weighted[t][p] = Class::kHasMin ? ZeroI() : AsInt(products(t, p));
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
      const F whole = Class::kHasMin ? AsFloat(products(t, p)) : QuietToFloat(weighted[t][p]);
      F sum = QuietFma(whole, QuietMul(Load(image.d[0][p]), scale), Load(sums[t][p]));
      if constexpr (Class::kHasMin) {
        const F min = QuietMul(Load(image.min[0][p]), scale);
        sum = QuietFma(QuietToFloat(weighted[t][p]), min, sum);
      }
      Store(sums[t][p], sum);
    }
  }
}

// --- blocks of 32 (NVFP4: 16)

// What the dot product of the image's block `index` and the tile's token t starts with.
template <typename Format>
[[gnu::always_inline]] static inline I OffsetOfDot(const TileActivations& x, int index, int t) {
  return OffsetOfDot<Format>(x.bsum + t * x.bsum_stride + Format::kBlock / 16 * index);
}
// sum + what block `index` of panel p gives for token t, whose dot product is `dot`.
template <typename Format>
[[gnu::always_inline]] static inline F AddBlock(const TileImage& image, const TileActivations& x,
                                                int index, int t, int p, I dot, F sum) {
  F min = Zero();
  if constexpr (Format::kHasMin) min = Load(image.min[index][p]);
  return AddBlock<Format>(sum, dot, Load(image.d[index][p]), min, Set1(x.d[t * x.d_stride + index]),
                          x.bsum + t * x.bsum_stride + Format::kBlock / 16 * index);
}
