// Products with many activation rows (matmul.inl.h): a warp has a panel and 16, 32 or 64 rows. The
// block's warps share the activations; those, and each warp's weights, are copied into shared
// memory while what came before is multiplied, 128 k of activations at a time.

constexpr int kTileWarps = 4;
constexpr int kTileThreads = kTileWarps * kWarp;
constexpr int kStageK = 128;
constexpr int kStageQuads = kStageK / 4;  // in dwords

struct alignas(8) Float2 {
  float v[2];
};

// Of kCols times 8 activation rows. A unit is what has whole blocks: 128 or 256 k.
template <typename WeightFormat, int kCols>
struct TileShape {
  using Format = WeightFormat;
  using Chunk = ChunkShape<Format>;
  static constexpr int kMmas = kCols;
  static constexpr int kAtOnce = kMmas < 4 ? kMmas : 4;  // Mmas that run, or do not, together
  static constexpr int kTokens = kMmas * kTokensOfMma;
  // So that what a warp reads of 8 tokens at once lies in banks of its own.
  static constexpr int kStride = kStageQuads + (Chunk::kPairs ? 8 : 4);
  static constexpr int kQuads = kTokens * kStride;
  static constexpr int kUnitK = Format::kBlock == 256 ? 256 : kStageK;
  static constexpr int kStages = kUnitK / kStageK;
  static constexpr int kBlocks = kUnitK / Format::kBlock;
  static constexpr int kBytes = kBlocks * Format::P16::kBytes;  // of a panel
  static constexpr int kScales = kBlocks * kTokens;
  static constexpr int kSumDwords = kUnitK / 32;  // of a token, each two sums of 16
  static constexpr int kSums = Format::kHasMin ? kTokens * kSumDwords : 1;
};

// What a block's threads copy from. In place of tokens that are not there they copy the last one
// again, which nobody stores.
struct TileSource {
  Activations x;           // from the tile's first token on
  const uint8_t* weights;  // of the warp's panel; null: there is none
  int tokens, k;
};

// Whether there is a k: with blocks of 256 all units are whole.
template <typename Shape>
DT_DEVICE bool HasK(const TileSource& from, int k) {
  return Shape::kUnitK == 256 || k < from.k;
}

// Copies 128 k of the activations, what is left of them.
template <typename Shape, typename Shared>
DT_DEVICE void CopyQuads(const TileSource& from, int first_k, Shared& quads, int to) {
  constexpr int kVectors = kStageK / 16;
  constexpr int kTokensAtOnce = kTileThreads / kVectors;
  const int token = ThreadIndex() / kVectors, at = ThreadIndex() % kVectors;
  const int k = first_k + at * 16, index = to + token * Shape::kStride + at * 4;
  const auto stride = static_cast<int>(from.x.q_stride);
  if (!HasK<Shape>(from, k)) return;
  DT_UNROLL
  for (int i = 0; i < Shape::kTokens; i += kTokensAtOnce) {
    const int8_t* q = from.x.q + (Smaller(token + i, from.tokens - 1) * stride + k);
    CopyAsync16(quads, index + i * Shape::kStride, q);
  }
}

// The scales of a unit's activations, [blocks, tokens].
template <typename Shape, typename Shared>
DT_DEVICE void CopyScales(const TileSource& from, int unit, Shared& dx, int to) {
  const auto stride = static_cast<int>(from.x.d_stride);
  DT_UNROLL
  for (int first = 0; first < Shape::kScales; first += kTileThreads) {
    const int i = first + ThreadIndex();
    const int token = Smaller(i % Shape::kTokens, from.tokens - 1);
    const int block = unit * Shape::kBlocks + i / Shape::kTokens;
    const bool has = HasK<Shape>(from, block * Shape::Format::kBlock);
    if (i < Shape::kScales && has) CopyAsync4(dx, to + i, from.x.d + (token * stride + block));
  }
}

// The sums of 16 activations each, [tokens, kSumDwords]: of blocks of 256 eight at a time, else
// two.
template <typename Shape, typename Shared>
DT_DEVICE void CopySums(const TileSource& from, int unit, Shared& sums, int to) {
  constexpr int kDwords = Shape::kUnitK == 256 ? 4 : 1;
  constexpr int kOfToken = Shape::kSumDwords / kDwords, kCopies = Shape::kTokens * kOfToken;
  const auto stride = static_cast<int>(from.x.bsum_stride);
  DT_UNROLL
  for (int first = 0; first < kCopies; first += kTileThreads) {
    const int i = first + ThreadIndex();
    const int token = Smaller(i / kOfToken, from.tokens - 1);
    const int k = unit * Shape::kUnitK + i % kOfToken * kDwords * 32;
    if (i >= kCopies || !HasK<Shape>(from, k)) continue;
    const int16_t* bsum = from.x.bsum + (token * stride + k / 16);
    if constexpr (kDwords == 4) {
      CopyAsync16(sums, to + i * kDwords, bsum);
    } else {
      CopyAsync4(sums, to + i, bsum);
    }
  }
}

// A warp copies what there is of a unit of its panel.
template <typename Shape, typename Shared>
DT_DEVICE void CopyWeights(const TileSource& from, int unit, Shared& weights, int to) {
  using Format = typename Shape::Format;
  if (from.weights == nullptr) return;
  const int left = from.k / Format::kBlock - unit * Shape::kBlocks;
  const int bytes =
      Shape::kUnitK == 256 ? Shape::kBytes : Smaller(Shape::kBlocks, left) * Format::P16::kBytes;
  const uint8_t* panel = from.weights + int64_t{unit} * Shape::kBytes;
  DT_UNROLL
  for (int first = 0; first < Shape::kBytes; first += 16 * kWarp) {
    const int at = first + 16 * Lane();
    if (at < bytes) CopyAsync16(weights, to + at, panel + at);
  }
}

// Calls run(m) for Mmas that have tokens, Shape::kAtOnce without a branch between them.
template <typename Shape, typename Run>
DT_DEVICE void EachMma(int mmas, const Run& run) {
  DT_UNROLL
  for (int first = 0; first < Shape::kMmas; first += Shape::kAtOnce) {
    if (first >= mmas) break;
    DT_UNROLL
    for (int m = first; m < first + Shape::kAtOnce; ++m) run(m);
  }
}

// The integers of a chunk, with the tokens of the first `mmas` Mmas; `quads` starts at it.
template <typename Shape, typename Shared>
DT_DEVICE void TileChunk(auto block, int chunk, Shared& quads, int at, int mmas,
                         int32_t (&sums)[Shape::kMmas][4]) {
  using Format = typename Shape::Format;
  using Chunk = typename Shape::Chunk;
  const int g = Lane() / 4, t = Lane() % 4;
  const RowsOfChunk<Format> rows = LoadRows<Format>(block, chunk);
  EachMma<Shape>(mmas, [&](int m) {
    const int from = at + (m * kTokensOfMma + g) * Shape::kStride + t * Chunk::kQuadStep;
    int32_t b[2] = {};
    if constexpr (Chunk::kPairs) {
      const auto both = ReadShared<Int2>(quads, from);
      b[0] = both.x;
      b[1] = both.y;
    } else {
      b[0] = quads[from];
      if constexpr (Chunk::kQuads > 4) b[1] = quads[from + 4];
    }
    MultiplyChunk<Format>(rows, b, sums[m]);
  });
}

template <typename Shape, typename Shared>
DT_DEVICE void TileMinimums(const int32_t (&mins)[2], Shared& sums, int at, int m, int block,
                            int32_t (&minimum)[4]) {
  using Format = typename Shape::Format;
  constexpr int kDwords = Shape::kSumDwords;
  const int g = Lane() / 4, t = Lane() % 4;
  if constexpr (kMinsByMma<Format>) {
    const int from = at + (m * kTokensOfMma + g) * kDwords;
    const SumBytes bytes =
        LoadSums<Format>([&](int i) { return ReadShared<Int4>(sums, from + 4 * i); },
                         [&](int i) { return ReadShared<Int2>(sums, from + 2 * i); });
    MultiplyMins(mins, bytes, minimum);
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
template <typename Shape, typename Floats, typename Shared>
DT_DEVICE void AddBlock(auto block, int b, int mmas, Floats& dx, int dx_at, Shared& sums,
                        int sums_at, const int32_t (&integers)[Shape::kMmas][4],
                        float (&acc)[Shape::kMmas][4]) {
  using Format = typename Shape::Format;
  const int g = Lane() / 4, t = Lane() % 4;
  const float d[2] = {Format::D(block, 2 * g), Format::D(block, 2 * g + 1)};
  float min_scale[2] = {};
  int32_t mins[2] = {};
  if constexpr (Format::kHasMin) {
    min_scale[0] = Format::MinScale(block, 2 * g);
    min_scale[1] = Format::MinScale(block, 2 * g + 1);
    if constexpr (kMinsByMma<Format>) LoadMins<Format>(block, mins);
  }
  EachMma<Shape>(mmas, [&](int m) {
    int32_t minimum[4] = {};
    if constexpr (Format::kHasMin) TileMinimums<Shape>(mins, sums, sums_at, m, b, minimum);
    const auto scale =
        ReadShared<Float2>(dx, dx_at + b * Shape::kTokens + m * kTokensOfMma + 2 * t);
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

template <typename Shape>
DT_DEVICE void StoreTile(const DeviceMatmulArgs& args, int64_t panel,
                         const float (&acc)[Shape::kMmas][4]) {
  const int g = Lane() / 4, t = Lane() % 4;
  DT_UNROLL
  for (int m = 0; m < Shape::kMmas; ++m) {
    DT_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t n = panel * kPanelRows + 2 * g + j / 2;
      const int token = m * kTokensOfMma + 2 * t + j % 2;
      if (n < args.n && token < args.rows) StoreProduct(args, token, n, acc[m][j]);
    }
  }
}

// Block x: kTileWarps panels from `begin` on, up to `end` or to the end of each of the matrices
// beside each other; block y: kMmas times 8 rows of a group or head.
template <typename Format, int kMmas>
DT_KERNEL void TileKernel(DeviceMatmulArgs args, int64_t begin, int64_t end) {
  using Shape = TileShape<Format, kMmas>;
  using Chunk = ChunkShape<Format>;
  constexpr int kStageChunks = kStageK / Chunk::kElements;
  DT_SHARED(int32_t, quads, 2 * Shape::kQuads);
  DT_SHARED(uint8_t, weights, 2 * kTileWarps * Shape::kBytes);
  DT_SHARED(float, dx, 2 * Shape::kScales);
  DT_SHARED(uint32_t, sums, 2 * Shape::kSums);
  int tile = 0;
  const int64_t block_index = SelectBeside(&args, BlockIndex(), kTileWarps);
  if (!SelectRows(&args, &tile) || !SelectTile(&args, tile, Shape::kTokens)) return;
  const int64_t panel = begin + block_index * kTileWarps + WarpIndex();
  if (args.num_beside > 0) end = CeilDiv(args.n, kPanelRows);
  const int64_t panel_bytes = args.k / Format::kBlock * Format::P16::kBytes;
  const int k = static_cast<int>(args.k);
  const bool has = panel < end;
  const TileSource from = {args.x, has ? args.w + panel * panel_bytes : nullptr, args.rows, k};
  const int mmas = (args.rows + kTokensOfMma - 1) / kTokensOfMma;
  const int own = WarpIndex() * Shape::kBytes;  // of the weights of all warps
  float acc[Shape::kMmas][4] = {};
  const auto begin_stage = [&](int stage) {
    CopyQuads<Shape>(from, stage * kStageK, quads, stage % 2 * Shape::kQuads);
    if (stage % Shape::kStages == 0) {
      const int unit = stage / Shape::kStages, buffer = unit % 2;
      CopyWeights<Shape>(from, unit, weights, buffer * kTileWarps * Shape::kBytes + own);
      CopyScales<Shape>(from, unit, dx, buffer * Shape::kScales);
      if constexpr (Format::kHasMin) CopySums<Shape>(from, unit, sums, buffer * Shape::kSums);
    }
    CommitCopies();
  };
  begin_stage(0);
  const int stages = (k + kStageK - 1) / kStageK;
  for (int unit = 0; unit * Shape::kStages < stages; ++unit) {
    const int buffer = unit % 2;
    const auto block = BytesFrom(weights, buffer * kTileWarps * Shape::kBytes + own);
    int32_t integers[Shape::kMmas][4] = {};
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
        const int at = stage % 2 * Shape::kQuads + c * Chunk::kQuads;
        if constexpr (Format::kBlock == 256) {
          TileChunk<Shape>(block, half * kStageChunks + c, quads, at, mmas, integers);
        } else if (stage * kStageK + c * Chunk::kElements < k) {
          int32_t of_block[Shape::kMmas][4] = {};
          const auto own_block = block + c * Format::P16::kBytes;
          TileChunk<Shape>(own_block, 0, quads, at, mmas, of_block);
          AddBlock<Shape>(own_block, c, mmas, dx, buffer * Shape::kScales, sums,
                          buffer * Shape::kSums, of_block, acc);
        }
      }
    }
    if constexpr (Format::kBlock == 256) {
      if (has) {
        AddBlock<Shape>(block, 0, mmas, dx, buffer * Shape::kScales, sums, buffer * Shape::kSums,
                        integers, acc);
      }
    }
  }
  if (has) StoreTile<Shape>(args, panel, acc);
}
