// Products with many activation rows (matmul.inl.h): a warp has a panel and kTileTokens rows. The
// block's warps share the activations; those, and each warp's weights, are copied into shared
// memory while what came before is multiplied, 128 k of activations at a time.

constexpr int kTileWarps = 4;
constexpr int kTileThreads = kTileWarps * kWarp;
constexpr int kTileMmas = 8;
constexpr int kMmasAtOnce = 4;  // that run, or do not, together
constexpr int kTileTokens = kTileMmas * kTokensOfMma;
constexpr int kStageK = 128;
constexpr int kStageQuads = kStageK / 4;       // in dwords
constexpr int kStageStride = kStageQuads + 4;  // so that quads of 8 tokens are in 32 banks
constexpr int kTileQuads = kTileTokens * kStageStride;

struct alignas(8) Float2 {
  float v[2];
};

// A unit is what has whole blocks: 128 or 256 k.
template <typename Format>
struct TileShape {
  static constexpr int kUnitK = Format::kBlock == 256 ? 256 : kStageK;
  static constexpr int kStages = kUnitK / kStageK;
  static constexpr int kBlocks = kUnitK / Format::kBlock;
  static constexpr int kBytes = kBlocks * Format::P16::kBytes;  // of a panel
  static constexpr int kScales = kBlocks * kTileTokens;
  static constexpr int kSumDwords = kUnitK / 32;  // of a token, each two sums of 16
  static constexpr int kSums = Format::kHasMin ? kTileTokens * kSumDwords : 1;
};

// What a block's threads copy from. In place of tokens that are not there they copy the last one
// again, which nobody stores.
struct TileSource {
  Activations x;           // from the tile's first token on
  const uint8_t* weights;  // of the warp's panel; null: there is none
  int tokens, k;
};

// Copies 128 k of the activations, what is left of them.
template <typename Shared>
DT_DEVICE void CopyQuads(const TileSource& from, int first_k, Shared& quads, int to) {
  constexpr int kVectors = kStageK / 16;
  DT_UNROLL
  for (int i = ThreadIndex(); i < kTileTokens * kVectors; i += kTileThreads) {
    const int token = i / kVectors, at = i % kVectors, k = first_k + at * 16;
    const int index = to + token * kStageStride + at * 4;
    if (k >= from.k) continue;
    CopyAsync16(quads, index, from.x.q + Smaller(token, from.tokens - 1) * from.x.q_stride + k);
  }
}

// The scales of a unit's activations, [blocks, tokens].
template <typename Format, typename Shared>
DT_DEVICE void CopyScales(const TileSource& from, int unit, Shared& dx, int to) {
  using Shape = TileShape<Format>;
  const int past = from.k / Format::kBlock;
  DT_UNROLL
  for (int i = ThreadIndex(); i < Shape::kScales; i += kTileThreads) {
    const int token = Smaller(i % kTileTokens, from.tokens - 1);
    const int block = unit * Shape::kBlocks + i / kTileTokens;
    if (block < past) CopyAsync4(dx, to + i, from.x.d + token * from.x.d_stride + block);
  }
}

// The sums of 16 activations each, [tokens, kSumDwords].
template <typename Format, typename Shared>
DT_DEVICE void CopySums(const TileSource& from, int unit, Shared& sums, int to) {
  using Shape = TileShape<Format>;
  DT_UNROLL
  for (int i = ThreadIndex(); i < Shape::kSums; i += kTileThreads) {
    const int token = Smaller(i / Shape::kSumDwords, from.tokens - 1);
    const int k = unit * Shape::kUnitK + i % Shape::kSumDwords * 32;
    if (k < from.k) CopyAsync4(sums, to + i, from.x.bsum + token * from.x.bsum_stride + k / 16);
  }
}

// A warp copies what there is of a unit of its panel.
template <typename Format, typename Shared>
DT_DEVICE void CopyWeights(const TileSource& from, int unit, Shared& weights, int to) {
  using Shape = TileShape<Format>;
  if (from.weights == nullptr) return;
  const int blocks = Smaller(Shape::kBlocks, from.k / Format::kBlock - unit * Shape::kBlocks);
  const int bytes = blocks * Format::P16::kBytes;
  const uint8_t* panel = from.weights + int64_t{unit} * Shape::kBytes;
  for (int at = 16 * Lane(); at < bytes; at += 16 * kWarp) {
    CopyAsync16(weights, to + at, panel + at);
  }
}

// Calls run(m) for Mmas that have tokens, kMmasAtOnce without a branch between them.
template <typename Run>
DT_DEVICE void EachMma(int mmas, const Run& run) {
  DT_UNROLL
  for (int first = 0; first < kTileMmas; first += kMmasAtOnce) {
    if (first >= mmas) break;
    DT_UNROLL
    for (int m = first; m < first + kMmasAtOnce; ++m) run(m);
  }
}

// The integers of a chunk, with the tokens of the first `mmas` Mmas; `quads` starts at it.
template <typename Format, typename Shared>
DT_DEVICE void TileChunk(auto block, int chunk, Shared& quads, int at, int mmas,
                         int32_t (&sums)[kTileMmas][4]) {
  const int g = Lane() / 4, t = Lane() % 4;
  const RowsOfChunk<Format> rows = LoadRows<Format>(block, chunk);
  EachMma(mmas, [&](int m) {
    const int from = at + (m * kTokensOfMma + g) * kStageStride + t;
    int32_t b[2] = {quads[from], 0};
    if constexpr (ChunkShape<Format>::kQuads > 4) b[1] = quads[from + 4];
    MultiplyChunk<Format>(rows, b, sums[m]);
  });
}

template <typename Format, typename Shared>
DT_DEVICE void TileMinimums(const int32_t (&mins)[2], Shared& sums, int at, int m, int block,
                            int32_t (&minimum)[4]) {
  constexpr int kDwords = TileShape<Format>::kSumDwords;
  const int g = Lane() / 4, t = Lane() % 4;
  if constexpr (kMinsByMma<Format>) {
    const int from = at + (m * kTokensOfMma + g) * kDwords;
    MultiplyMins(mins, LoadSums<Format>([&](int i) -> uint32_t { return sums[from + i]; }),
                 minimum);
  } else {
    DT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int from = at + (m * kTokensOfMma + 2 * t + i) * kDwords + block;
      const uint32_t pair = sums[from];
      minimum[i] = minimum[2 + i] = LowHalf(pair) + HighHalf(pair);
    }
  }
}

// The floats of one block: acc = fma(I, d dx, acc), and the minimums' part. b: which of its unit.
template <typename Format, typename Floats, typename Shared>
DT_DEVICE void AddBlock(auto block, int b, int mmas, Floats& dx, int dx_at, Shared& sums,
                        int sums_at, const int32_t (&integers)[kTileMmas][4],
                        float (&acc)[kTileMmas][4]) {
  const int g = Lane() / 4, t = Lane() % 4;
  const float d[2] = {Format::D(block, g), Format::D(block, g + kPanelRows / 2)};
  float min_scale[2] = {};
  int32_t mins[2] = {};
  if constexpr (Format::kHasMin) {
    min_scale[0] = Format::MinScale(block, g);
    min_scale[1] = Format::MinScale(block, g + kPanelRows / 2);
    if constexpr (kMinsByMma<Format>) LoadMins<Format>(block, mins);
  }
  EachMma(mmas, [&](int m) {
    int32_t minimum[4] = {};
    if constexpr (Format::kHasMin) TileMinimums<Format>(mins, sums, sums_at, m, b, minimum);
    const auto scale = ReadShared<Float2>(dx, dx_at + b * kTileTokens + m * kTokensOfMma + 2 * t);
    DT_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float s = scale.v[j % 2];
      acc[m][j] = Fma(static_cast<float>(integers[m][j]), d[j / 2] * s, acc[m][j]);
      if constexpr (Format::kHasMin) {
        acc[m][j] = Fma(static_cast<float>(minimum[j]), min_scale[j / 2] * s, acc[m][j]);
      }
    }
  });
}

DT_DEVICE void StoreTile(const DeviceMatmulArgs& args, int64_t panel,
                         const float (&acc)[kTileMmas][4]) {
  const int g = Lane() / 4, t = Lane() % 4;
  DT_UNROLL
  for (int m = 0; m < kTileMmas; ++m) {
    DT_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t n = panel * kPanelRows + g + j / 2 * kPanelRows / 2;
      const int token = m * kTokensOfMma + 2 * t + j % 2;
      if (n < args.n && token < args.rows) StoreProduct(args, token, n, acc[m][j]);
    }
  }
}

// Block x: kTileWarps panels from `begin` on, up to `end` or to the end of each of the matrices
// beside each other; block y: kTileTokens rows of a group or head.
template <typename Format>
DT_KERNEL void TileKernel(DeviceMatmulArgs args, int64_t begin, int64_t end) {
  using Shape = TileShape<Format>;
  using Chunk = ChunkShape<Format>;
  constexpr int kStageChunks = kStageK / Chunk::kElements;
  DT_SHARED(int32_t, quads, 2 * kTileQuads);
  DT_SHARED(uint8_t, weights, 2 * kTileWarps * Shape::kBytes);
  DT_SHARED(float, dx, 2 * Shape::kScales);
  DT_SHARED(uint32_t, sums, 2 * Shape::kSums);
  int tile = 0;
  const int64_t block_index = SelectBeside(&args, BlockIndex(), kTileWarps);
  if (!SelectRows(&args, &tile) || !SelectTile(&args, tile, kTileTokens)) return;
  const int64_t panel = begin + block_index * kTileWarps + WarpIndex();
  if (args.num_beside > 0) end = CeilDiv(args.n, kPanelRows);
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  const int k = static_cast<int>(args.k);
  const bool has = panel < end;
  const TileSource from = {args.x, has ? args.w + panel * panel_bytes : nullptr, args.rows, k};
  const int mmas = (args.rows + kTokensOfMma - 1) / kTokensOfMma;
  const int own = WarpIndex() * Shape::kBytes;  // of the weights of all warps
  float acc[kTileMmas][4] = {};
  const auto begin_stage = [&](int stage) {
    CopyQuads(from, stage * kStageK, quads, stage % 2 * kTileQuads);
    if (stage % Shape::kStages == 0) {
      const int unit = stage / Shape::kStages, buffer = unit % 2;
      CopyWeights<Format>(from, unit, weights, buffer * kTileWarps * Shape::kBytes + own);
      CopyScales<Format>(from, unit, dx, buffer * Shape::kScales);
      if constexpr (Format::kHasMin) CopySums<Format>(from, unit, sums, buffer * Shape::kSums);
    }
    CommitCopies();
  };
  begin_stage(0);
  const int stages = (k + kStageK - 1) / kStageK;
  for (int unit = 0; unit * Shape::kStages < stages; ++unit) {
    const int buffer = unit % 2;
    const auto block = BytesFrom(weights, buffer * kTileWarps * Shape::kBytes + own);
    int32_t integers[kTileMmas][4] = {};
    DT_UNROLL
    for (int half = 0; half < Shape::kStages; ++half) {
      const int stage = unit * Shape::kStages + half;
      WaitCopies<0>();
      SyncBlock();
      // Nobody reads the other buffers any more: the wait above was behind their last reading.
      if (stage + 1 < stages) begin_stage(stage + 1);
      if (!has) continue;
      DT_UNROLL
      for (int c = 0; c < kStageChunks; ++c) {
        const int at = stage % 2 * kTileQuads + c * Chunk::kQuads;
        if constexpr (Format::kBlock == 256) {
          TileChunk<Format>(block, half * kStageChunks + c, quads, at, mmas, integers);
        } else if (stage * kStageK + c * Chunk::kElements < k) {
          int32_t of_block[kTileMmas][4] = {};
          const auto own_block = block + c * Format::P16::kBytes;
          TileChunk<Format>(own_block, 0, quads, at, mmas, of_block);
          AddBlock<Format>(own_block, c, mmas, dx, buffer * Shape::kScales, sums,
                           buffer * Shape::kSums, of_block, acc);
        }
      }
    }
    if constexpr (Format::kBlock == 256) {
      if (has) {
        AddBlock<Format>(block, 0, mmas, dx, buffer * Shape::kScales, sums, buffer * Shape::kSums,
                         integers, acc);
      }
    }
  }
  if (has) StoreTile(args, panel, acc);
}
