// Products of quantised weights in P16 with many rows of int8 activations, in tile registers.
// Included once, inside the instruction set's namespace, after matmul_quant.inl.h.
//
// One TDPBSUD takes what has a scale of its own: 16 tokens times 16 weight rows over a sub-block of
// 32 or 16 k. Eight (four) 64-byte vectors of unpacked P16, "16 rows x 4 k" each, are such a tile
// of weights as they lie. The int32 sums of a tile are exact; scales and all that follows are
// vector code, and what is computed, and in which order, is that of matmul_quant.inl.h.
//
// Tile registers belong to the thread. A slice configures them where it begins and releases them at
// its end: nothing is held between calls, so any thread may run any slice, no other user of tiles
// is disturbed, and a context switch has no 8 KiB of them to save.

constexpr int kTokensOfTile = 16;
// Products of so many rows are made here. A tile costs the same however few of its rows are used;
// where it begins to pay was not measured, for want of a machine.
constexpr int kTileRows = 16;

// Tiles: activations and sums of 16 tokens, and of the tokens that are left.
constexpr int kWeightTile = 0, kTokenTile = 1, kSumTile = 2, kLastTokenTile = 3, kLastSumTile = 4;

static inline void ConfigureFor(int sub_block, int last_tokens) {
  TileConfig config = {.palette = 1};
  const auto shape = [&config](int tile, int rows, int row_bytes) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
  };
  shape(kWeightTile, sub_block / 4, 64);
  shape(kTokenTile, kTokensOfTile, sub_block);
  shape(kSumTile, kTokensOfTile, 64);
  if (last_tokens > 0) {
    shape(kLastTokenTile, last_tokens, sub_block);
    shape(kLastSumTile, last_tokens, 64);
  }
  ConfigureTiles(config);
}

// dots[t] = the products of a sub-block with token t, of 16 or of the tokens that are left.
template <bool kLast>
[[gnu::always_inline]] static inline void DotsOfTile(const int8_t* q, int64_t q_stride,
                                                     const uint8_t (*weights)[64],
                                                     int32_t (*dots)[16]) {
  constexpr int kTokens = kLast ? kLastTokenTile : kTokenTile;
  constexpr int kSum = kLast ? kLastSumTile : kSumTile;
  ZeroTile<kSum>();
  LoadTile<kTokens>(q, q_stride);
  LoadTile<kWeightTile>(weights, 64);
  DotTiles<kSum, kTokens, kWeightTile>();
  StoreTile<kSum>(dots, 64);
}

// Calls body.template operator()<kLast>(first, count) for the tiles of a group.
template <typename Body>
[[gnu::always_inline]] static inline void ForTokenTiles(const TokenGroup& group, const Body& body) {
  int first = 0;
  for (; first + kTokensOfTile <= group.count; first += kTokensOfTile) {
    body.template operator()<false>(first, kTokensOfTile);
  }
  if (first < group.count) body.template operator()<true>(first, group.count - first);
}

// --- blocks of 256

struct BlockImage {
  alignas(64) uint8_t weights[64][64];
  alignas(64) int32_t scale[16][16];
};

template <typename Format>
static inline void FillImage(const uint8_t* panel_block, BlockImage* image) {
  const auto fill_chunk = [&](auto chunk) {
    constexpr int kChunk = decltype(chunk)::kValue;
    B w[8];
    Format::template Unpack<kChunk>(panel_block, w);
    DT_UNROLL for (int g = 0; g < 8; ++g) StoreB(image->weights[8 * kChunk + g], w[g]);
  };
  ForFour([&](auto half) {
    fill_chunk(Constant<2 * decltype(half)::kValue>());
    fill_chunk(Constant<2 * decltype(half)::kValue + 1>());
  });
  for (int s = 0; s < 256 / Format::kSubBlock; ++s) {
    StoreI(image->scale[s], Format::Scale(panel_block, s));
  }
}

// products[16 t ..] = the sum over sub-blocks of scale * dot, for 16 tokens; those past the last
// one mean nothing.
template <int kSubBlock, bool kLast>
[[gnu::noinline]] static void AmxProducts(const BlockImage& image, const int8_t* q,
                                          int64_t q_stride, int32_t* products) {
  alignas(64) int32_t dots[kTokensOfTile][16];
  if constexpr (kLast) __builtin_memset(dots, 0, sizeof(dots));
  I sum[kTokensOfTile];
  DT_UNROLL for (I& s : sum) s = ZeroI();
  for (int s = 0; s < 256 / kSubBlock; ++s) {
    DotsOfTile<kLast>(q + kSubBlock * s, q_stride, image.weights + kSubBlock / 4 * s, dots);
    const I scale = LoadI(image.scale[s]);
    DT_UNROLL for (int t = 0; t < kTokensOfTile; ++t) {
      sum[t] = AddI(sum[t], MulI(LoadI(dots[t]), scale));
    }
  }
  DT_UNROLL for (int t = 0; t < kTokensOfTile; ++t) StoreI(products + 16 * t, sum[t]);
}

template <typename Format>
static void AmxPanel256(const MatmulArgs& args, const uint8_t* panel, TokenGroup* group) {
  static_assert(kTokenGroup % kTokensOfTile == 0);
  BlockImage image;
  IntegerSums sums;
  for (int64_t block = 0; block < args.k / 256; ++block, panel += Format::P16::kBytes) {
    PrefetchChunks<Format, 0, 8>(panel);
    FillImage<Format>(panel, &image);
    const int8_t* q = args.x.q + group->first * args.x.q_stride + 256 * block;
    ForTokenTiles(*group, [&]<bool kLast>(int first, int) {
      AmxProducts<Format::kSubBlock, kLast>(image, q + first * args.x.q_stride, args.x.q_stride,
                                            sums.sum + 16 * first);
    });
    FinishBlock256<Format>(args, panel, block, sums, group);
  }
}

// --- blocks of 32 (NVFP4: 16)

// What AddSmallBlocks does with one block.
template <typename Format>
static void AmxSmallBlock(const MatmulArgs& args, const uint8_t* panel_block, int64_t block,
                          TokenGroup* group) {
  constexpr int kGroups = Format::kBlock / 4;
  PrefetchBlocks<Format, 1>(panel_block);
  alignas(64) uint8_t weights[kGroups][64];
  B w[kGroups];
  Format::template Unpack<0>(panel_block, w);
  DT_UNROLL for (int g = 0; g < kGroups; ++g) StoreB(weights[g], w[g]);
  const F d = Format::D(panel_block), m = MinOf<Format>(panel_block);
  const Activations& x = args.x;
  const int8_t* q = x.q + group->first * x.q_stride + Format::kBlock * block;
  const float* dx = x.d + group->first * x.d_stride + block;
  const int16_t* bsum = x.bsum + group->first * x.bsum_stride + Format::kBlock / 16 * block;
  ForTokenTiles(*group, [&]<bool kLast>(int first, int count) {
    alignas(64) int32_t dots[kTokensOfTile][16];
    DotsOfTile<kLast>(q + first * x.q_stride, x.q_stride, weights, dots);
    for (int t = first; t < first + count; ++t) {
      const int16_t* sums = bsum + t * x.bsum_stride;
      const I dot = AddI(LoadI(dots[t - first]), OffsetOfDot<Format>(sums));
      float* sum = group->sum + 16 * t;
      Store(sum, AddBlock<Format>(Load(sum), dot, d, m, Set1(dx[t * x.d_stride]), sums));
    }
  });
}

template <typename Format>
static void AmxPanelSmall(const MatmulArgs& args, const uint8_t* panel, TokenGroup* group) {
  const int64_t num_blocks = args.k / Format::kBlock;
  for (int64_t block = 0; block < num_blocks; ++block, panel += Format::P16::kBytes) {
    AmxSmallBlock<Format>(args, panel, block, group);
  }
}

// --- all panels of a slice

template <typename Format>
static constexpr int KOfTile() {
  if constexpr (Format::kBlock <= 32) {
    return Format::kBlock;
  } else {
    return Format::kSubBlock;
  }
}

template <typename Format>
static void AmxMatmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  ConfigureFor(KOfTile<Format>(), static_cast<int>(args.rows % kTokensOfTile));
  TokenGroup group;
  for (int64_t first = 0; first < args.rows; first += kTokenGroup) {
    const int64_t left = args.rows - first;
    group.first = first;
    group.count = static_cast<int>(left < kTokenGroup ? left : kTokenGroup);
    for (int64_t panel = begin; panel < end; ++panel) {
      ZeroSums(&group);
      if constexpr (Format::kBlock <= 32) {
        AmxPanelSmall<Format>(args, args.w + panel * panel_bytes, &group);
      } else {
        AmxPanel256<Format>(args, args.w + panel * panel_bytes, &group);
      }
      StoreSums(args, group.first, group.count, group.sum, 16, panel);
    }
  }
  ReleaseTiles();
}
