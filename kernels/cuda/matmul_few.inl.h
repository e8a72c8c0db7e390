// Products with up to 32 activation rows (matmul.inl.h), up to kTokens of them in a block of
// threads, which has one panel: as many blocks of k as possible are on their way from memory at the
// same time. With one row or two half a warp has the 16 rows of a panel and a block of k; with more
// a warp has it, by tensor cores. What each block gives each output waits in shared memory until
// the one thread that owns the output adds it in its place.

constexpr int kFewTermBytes = 32768;

// What a block of k adds to an output: acc = fma(value, scale, acc).
struct alignas(8) Term {
  float value, scale;
};

template <typename Format, int kTokens>
struct FewShape {
  static constexpr bool kByMma = kTokens >= kTokensOfMma;
  // Of a block, and blocks on a multiprocessor: so many that a warp has registers for what it loads
  // ahead.
  static constexpr bool kSlim = kTokens == 1 && !ChunkShape<Format>::kLooksUp &&
                                (Format::kBlock == 256 || Format::P16::kBytes <= 512);
  static constexpr int kThreads = kSlim ? 256 : 128;
  static constexpr int kResident = 2;
  static constexpr int kGroups = kThreads / (kByMma ? kWarp : kPanelRows);
  static constexpr int kOutputs = kTokens * kPanelRows;
  static constexpr int kOwn =
      kOutputs > kThreads ? kOutputs / kThreads : 1;  // of a thread, at most
  static constexpr int kTermBytes = kOutputs * static_cast<int>(sizeof(Term));
  // Blocks of k whose terms are in shared memory at a time.
  static constexpr int kStage = kFewTermBytes / kTermBytes / (Format::kHasMin ? 2 : 1);
  // Blocks that a group has at a time: of small ones several, so that it waits once for all.
  static constexpr int kMost = kStage / kGroups;
  static constexpr int kWished = Format::kBlock == 256 ? 1 : 4;
  static constexpr int kUnit = kMost < kWished ? kMost : kWished;
  static_assert(kUnit >= 1);
};

// The activations of a block of k, from token 0 on.
struct FewActivations {
  const int8_t* q;
  int64_t q_stride;
  const float* d;
  int64_t d_stride;
  const int16_t* bsum;
  int64_t bsum_stride;
  int tokens;
};

template <typename Format>
DT_DEVICE FewActivations ActivationsOf(const Activations& x, int64_t block, int tokens) {
  return {x.q + block * Format::kBlock,         x.q_stride,    x.d + block, x.d_stride,
          x.bsum + block * Format::kBlock / 16, x.bsum_stride, tokens};
}

// --- one row or two: lane `row` of half a warp has a row

template <typename Format>
DT_DEVICE int32_t RowMinimum(auto block, int row, const int16_t* bsum) {
  constexpr int kSubBlocks = ChunkShape<Format>::kSubBlocksOfBlock;
  int32_t minimum = 0;
  DT_UNROLL
  for (int i = 0; i < Format::kBlock / 32; ++i) {
    const auto pair = LoadVector<uint32_t>(bsum + 2 * i);
    if constexpr (kSubBlocks * 32 == Format::kBlock) {
      minimum += Format::Min(block, i, row) * (LowHalf(pair) + HighHalf(pair));
    } else {
      minimum += Format::Min(block, 2 * i, row) * LowHalf(pair);
      minimum += Format::Min(block, 2 * i + 1, row) * HighHalf(pair);
    }
  }
  return minimum;
}

// Adds the integers of kChunks chunks, from `first` on, of one row with each token.
template <typename Format, int kTokens, int kChunks>
DT_DEVICE void DotChunks(const uint8_t* block, int first, int row, const FewActivations& x,
                         int32_t (&sums)[kTokens]) {
  using Chunk = ChunkShape<Format>;
  constexpr int kSubQuads = Chunk::kQuads / Chunk::kSubBlocks;
  uint32_t w[kChunks][Chunk::kQuads];
  DT_UNROLL
  for (int c = 0; c < kChunks; ++c) {
    DT_UNROLL
    for (int i = 0; i < Chunk::kQuads; ++i) w[c][i] = Format::Quad(block, first + c, i, row);
  }
  DT_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const int8_t* q = x.q + Smaller(t, x.tokens - 1) * x.q_stride + first * Chunk::kElements;
    DT_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      DT_UNROLL
      for (int s = 0; s < Chunk::kSubBlocks; ++s) {
        int32_t dot = 0;
        DT_UNROLL
        for (int i = s * kSubQuads; i < (s + 1) * kSubQuads; i += 4) {
          const auto v = LoadVector<Int4>(q + c * Chunk::kElements + 4 * i);
          dot = Dp4a(static_cast<int32_t>(w[c][i]), v.x, dot);
          dot = Dp4a(static_cast<int32_t>(w[c][i + 1]), v.y, dot);
          dot = Dp4a(static_cast<int32_t>(w[c][i + 2]), v.z, dot);
          dot = Dp4a(static_cast<int32_t>(w[c][i + 3]), v.w, dot);
        }
        sums[t] += Format::Scale(block, (first + c) * Chunk::kSubBlocks + s, row) * dot;
      }
    }
  }
}

template <typename Format, int kTokens>
struct RowTerms {
  Term term[kTokens], min[kTokens];
};

template <typename Format, int kTokens>
DT_DEVICE RowTerms<Format, kTokens> DotBlock(const uint8_t* block, int row,
                                             const FewActivations& x) {
  constexpr int kChunks = ChunkShape<Format>::kChunks, kMost = ChunkShape<Format>::kAhead;
  constexpr int kAhead = kChunks < kMost ? kChunks : kMost;
  const float d = Format::D(block, row);
  int32_t sums[kTokens] = {};
  DT_UNROLL
  for (int first = 0; first < kChunks; first += kAhead) {
    DotChunks<Format, kTokens, kAhead>(block, first, row, x, sums);
  }
  RowTerms<Format, kTokens> terms = {};
  DT_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const int token = Smaller(t, x.tokens - 1);
    const float dx = x.d[token * x.d_stride];
    terms.term[t] = {static_cast<float>(sums[t]), d * dx};
    if constexpr (Format::kHasMin) {
      const int32_t minimum = RowMinimum<Format>(block, row, x.bsum + token * x.bsum_stride);
      terms.min[t] = {static_cast<float>(minimum), Format::MinScale(block, row) * dx};
    }
  }
  return terms;
}

// Blocks [b, b + kBlocks) of a stage, whose first one is `first` of the panel.
template <typename Format, int kTokens, int kBlocks, typename Terms, typename Mins>
DT_DEVICE void DotUnit(const DeviceMatmulArgs& args, const uint8_t* panel, int64_t first, int b,
                       Terms& terms, Mins& mins) {
  const int row = ThreadIndex() % kPanelRows;
  RowTerms<Format, kTokens> made[kBlocks];
  DT_UNROLL
  for (int i = 0; i < kBlocks; ++i) {
    const int64_t at = first + b + i;
    made[i] = DotBlock<Format, kTokens>(panel + at * Format::P16::kBytes, row,
                                        ActivationsOf<Format>(args.x, at, args.rows));
  }
  DT_UNROLL
  for (int i = 0; i < kBlocks; ++i) {
    DT_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const int to = ((b + i) * kTokens + t) * kPanelRows + row;
      terms[to] = made[i].term[t];
      if constexpr (Format::kHasMin) mins[to] = made[i].min[t];
    }
  }
}

// --- more: a warp has the panel's block, for eight tokens at a time

template <typename Format, int kMmas>
DT_DEVICE void MmaChunk(const RowsOfChunk<Format>& rows, int chunk, const FewActivations& x,
                        int32_t (&sums)[kMmas][4]) {
  using Chunk = ChunkShape<Format>;
  const int g = Lane() / 4, t = Lane() % 4;
  DT_UNROLL
  for (int m = 0; m < kMmas; ++m) {
    const int token = Smaller(m * kTokensOfMma + g, x.tokens - 1);
    const int8_t* q =
        x.q + token * x.q_stride + chunk * Chunk::kElements + 4 * Chunk::kQuadStep * t;
    int32_t b[2] = {};
    if constexpr (Chunk::kPairs) {
      const auto both = LoadVector<Int2>(q);
      b[0] = both.x;
      b[1] = both.y;
    } else {
      b[0] = LoadVector<int32_t>(q);
      if constexpr (Chunk::kQuads > 4) b[1] = LoadVector<int32_t>(q + 16);
    }
    MultiplyChunk<Format>(rows, b, sums[m]);
  }
}

// The minimums of a block's sub-blocks with eight tokens from `first` on.
template <typename Format>
DT_DEVICE void MinimumsOf(const uint8_t* block, const FewActivations& x, int first,
                          int32_t (&minimum)[4]) {
  const int g = Lane() / 4, t = Lane() % 4;
  if constexpr (kMinsByMma<Format>) {
    int32_t mins[2];
    LoadMins<Format>(block, mins);
    const int16_t* bsum = x.bsum + Smaller(first + g, x.tokens - 1) * x.bsum_stride;
    const SumBytes sums = LoadSums<Format>([&](int i) { return LoadVector<Int4>(bsum + 8 * i); },
                                           [&](int i) { return LoadVector<Int2>(bsum + 4 * i); });
    MultiplyMins(mins, sums, minimum);
  } else {
    DT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int token = Smaller(first + 2 * t + i, x.tokens - 1);
      const auto pair = LoadVector<uint32_t>(x.bsum + token * x.bsum_stride);
      minimum[i] = minimum[2 + i] = LowHalf(pair) + HighHalf(pair);
    }
  }
}

template <typename Format, int kMmas, typename Terms, typename Mins>
DT_DEVICE void StoreTerms(const uint8_t* block, const FewActivations& x, int at,
                          const int32_t (&sums)[kMmas][4], Terms& terms, Mins& mins) {
  const int g = Lane() / 4, t = Lane() % 4;
  const float d[2] = {Format::D(block, 2 * g), Format::D(block, 2 * g + 1)};
  DT_UNROLL
  for (int m = 0; m < kMmas; ++m) {
    int32_t minimum[4] = {};
    if constexpr (Format::kHasMin) MinimumsOf<Format>(block, x, m * kTokensOfMma, minimum);
    DT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int token = m * kTokensOfMma + 2 * t + i;
      const float dx = x.d[Smaller(token, x.tokens - 1) * x.d_stride];
      DT_UNROLL
      for (int r = 0; r < 2; ++r) {
        const int row = 2 * g + r, to = (at + token) * kPanelRows + row;
        terms[to] = Term{static_cast<float>(sums[m][2 * r + i]), d[r] * dx};
        if constexpr (Format::kHasMin) {
          mins[to] =
              Term{static_cast<float>(minimum[2 * r + i]), Format::MinScale(block, row) * dx};
        }
      }
    }
  }
}

// As DotUnit, by a warp.
template <typename Format, int kTokens, int kBlocks, typename Terms, typename Mins>
DT_DEVICE void MmaUnit(const DeviceMatmulArgs& args, const uint8_t* panel, int64_t first, int b,
                       Terms& terms, Mins& mins) {
  constexpr int kMmas = kTokens / kTokensOfMma;
  constexpr int kChunks = ChunkShape<Format>::kChunks;
  constexpr int kMost = ChunkShape<Format>::kAhead / kMmas;
  constexpr int kAhead = kBlocks * kChunks < kMost ? kBlocks * kChunks : kMost;
  const uint8_t* block = panel + (first + b) * Format::P16::kBytes;
  int32_t sums[kBlocks][kMmas][4] = {};
  DT_UNROLL
  for (int chunk = 0; chunk < kBlocks * kChunks; chunk += kAhead) {
    RowsOfChunk<Format> rows[kAhead];
    DT_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int of = (chunk + i) / kChunks;
      rows[i] = LoadRows<Format>(block + of * Format::P16::kBytes, (chunk + i) % kChunks);
    }
    DT_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int of = (chunk + i) / kChunks;
      MmaChunk<Format, kMmas>(rows[i], (chunk + i) % kChunks,
                              ActivationsOf<Format>(args.x, first + b + of, args.rows), sums[of]);
    }
  }
  DT_UNROLL
  for (int i = 0; i < kBlocks; ++i) {
    StoreTerms<Format, kMmas>(block + i * Format::P16::kBytes,
                              ActivationsOf<Format>(args.x, first + b + i, args.rows),
                              (b + i) * kTokens, sums[i], terms, mins);
  }
}

// ---

template <typename Format, int kTokens, int kBlocks, typename Terms, typename Mins>
DT_DEVICE void FewUnit(const DeviceMatmulArgs& args, const uint8_t* panel, int64_t first, int b,
                       Terms& terms, Mins& mins) {
  if constexpr (FewShape<Format, kTokens>::kByMma) {
    MmaUnit<Format, kTokens, kBlocks>(args, panel, first, b, terms, mins);
  } else {
    DotUnit<Format, kTokens, kBlocks>(args, panel, first, b, terms, mins);
  }
}

// Tile `tile` of the rows, from here on row 0; false: there is none.
DT_DEVICE bool SelectTile(DeviceMatmulArgs* args, int tile, int tokens) {
  const int64_t first = int64_t{tile} * tokens;
  if (first >= args->rows) return false;
  SkipRows(&args->x, first, first);
  args->y += first * args->y_stride;
  args->rows = Smaller(args->rows - static_cast<int>(first), tokens);
  return true;
}

// Rows that a block has at most.
template <typename Format>
constexpr int kMostFewTokens = ChunkShape<Format>::kLooksUp ? 8 : 16;

// Block x: a panel from `begin` on, of all matrices beside each other; block y: kTokens rows of a
// group or head.
template <typename Format, int kTokens>
DT_BOUNDED_KERNEL((FewShape<Format, kTokens>::kThreads), (FewShape<Format, kTokens>::kResident))
void FewKernel(DeviceMatmulArgs args, int64_t begin) {
  using Shape = FewShape<Format, kTokens>;
  DT_SHARED(Term, terms, Shape::kStage * Shape::kOutputs);
  DT_SHARED(Term, mins, Format::kHasMin ? Shape::kStage * Shape::kOutputs : 1);
  int tile = 0;
  const int64_t panel = begin + SelectBeside(&args, BlockIndex(), 1);
  if (!SelectRows(&args, &tile) || !SelectTile(&args, tile, kTokens)) return;
  const int64_t blocks = args.k / Format::kBlock;
  const uint8_t* weights = args.w + panel * blocks * Format::P16::kBytes;
  const int group = ThreadIndex() / (Shape::kThreads / Shape::kGroups);
  float acc[Shape::kOwn] = {};
  for (int64_t first = 0; first < blocks; first += Shape::kStage) {
    const int stage = static_cast<int>(Smaller<int64_t>(Shape::kStage, blocks - first));
    for (int b = group * Shape::kUnit; b < stage; b += Shape::kGroups * Shape::kUnit) {
      if (b + Shape::kUnit <= stage) {
        FewUnit<Format, kTokens, Shape::kUnit>(args, weights, first, b, terms, mins);
      } else {
        for (int i = b; i < stage; ++i) {
          FewUnit<Format, kTokens, 1>(args, weights, first, i, terms, mins);
        }
      }
    }
    SyncBlock();
    DT_UNROLL
    for (int i = 0; i < Shape::kOwn; ++i) {
      const int output = ThreadIndex() + i * Shape::kThreads;
      if (output / kPanelRows >= args.rows) break;
      for (int b = 0; b < stage; ++b) {
        const Term term = terms[b * Shape::kOutputs + output];
        acc[i] = Fma(term.value, term.scale, acc[i]);
        if constexpr (Format::kHasMin) {
          const Term min = mins[b * Shape::kOutputs + output];
          acc[i] = Fma(min.value, min.scale, acc[i]);
        }
      }
    }
    if (first + Shape::kStage < blocks) SyncBlock();
  }
  DT_UNROLL
  for (int i = 0; i < Shape::kOwn; ++i) {
    const int output = ThreadIndex() + i * Shape::kThreads, token = output / kPanelRows;
    const int64_t n = panel * kPanelRows + output % kPanelRows;
    if (token < args.rows && n < args.n) StoreProduct(args, token, n, acc[i]);
  }
}
