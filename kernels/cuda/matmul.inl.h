// Products with quantised weights. The integers of a block are summed in any order; the blocks'
// floats are added in increasing k by the one thread that owns the output (docs/numerics.md).
//
//   few    up to 8 activation rows: half a warp has the 16 rows of a panel, each half-warp of the
//          block its own blocks of k; their integers meet in shared memory.
//   tile   more: a warp has a panel and up to 64 activation rows, as tensor-core products; a
//   block's
//          warps share the activations in shared memory.

#include "kernels/cuda/store.inl.h"

// The sums of the activations of a sub-block.
template <typename Format>
DT_DEVICE int SubBlockSum(const int16_t* bsum, int sub_block) {
  if constexpr (Format::kSubBlock == 16) return bsum[sub_block];
  return bsum[2 * sub_block] + bsum[2 * sub_block + 1];
}

// --- few

constexpr int kFewThreads = 128;
constexpr int kHalfWarps = kFewThreads / kPanelRows;

// Blocks whose integers are in shared memory at a time: 16 KiB of them.
template <typename Format, int kTokens>
struct FewShape {
  static constexpr int kStage = Format::kBlock == 256 ? 16 : 32;
  static constexpr int kInts = kStage * kPanelRows * kTokens;
};

// products[t] = the integer of one row's block with token t.
template <typename Format, int kTokens>
DT_DEVICE void FewProducts(const uint8_t* block, int row, const int8_t* q, int64_t q_stride,
                           int tokens, int32_t (&products)[kTokens]) {
  constexpr int kQuads = Format::kBlock < 32 ? Format::kBlock / 4 : 8;
  constexpr int kSubQuads = Format::kSubBlock / 4 < kQuads ? Format::kSubBlock / 4 : kQuads;
  constexpr int kChunks = Format::kBlock < 32 ? 1 : Format::kBlock / 32;
  for (int t = 0; t < kTokens; ++t) products[t] = 0;
  DT_UNROLL
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    int32_t w[kQuads];
    DT_UNROLL
    for (int i = 0; i < kQuads; ++i) {
      w[i] = static_cast<int32_t>(Format::Quad(block, chunk, i, row));
    }
    DT_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      if (t >= tokens) break;
      const int8_t* x = q + t * q_stride + chunk * 32;
      DT_UNROLL
      for (int first = 0; first < kQuads; first += kSubQuads) {
        int32_t dot = 0;
        DT_UNROLL
        for (int i = first; i < first + kSubQuads; ++i) {
          dot = Dp4a(w[i], LoadVector<int32_t>(x + 4 * i), dot);
        }
        products[t] += Format::Scale(block, (chunk * 8 + first) / kSubQuads, row) * dot;
      }
    }
  }
}

template <typename Format>
DT_DEVICE int32_t FewMinimum(const uint8_t* block, int row, const int16_t* bsum) {
  int32_t minimum = 0;
  for (int j = 0; j < Format::kBlock / Format::kSubBlock; ++j) {
    minimum += Format::Min(block, j, row) * SubBlockSum<Format>(bsum, j);
  }
  return minimum;
}

template <typename Format, int kTokens>
DT_KERNEL void FewKernel(DeviceMatmulArgs args, int64_t begin) {
  using Shape = FewShape<Format, kTokens>;
  DT_SHARED(int32_t, products, Shape::kInts);
  DT_SHARED(int32_t, minimums, Format::kHasMin ? Shape::kInts : 1);
  int tile = 0;
  if (!SelectRows(&args, &tile)) return;
  const int64_t panel = begin + BlockIndex();
  const int64_t blocks = args.k / Format::kBlock;
  const uint8_t* weights = args.w + panel * blocks * Format::P16::kBytes;
  const int row = ThreadIndex() % kPanelRows, half_warp = ThreadIndex() / kPanelRows;
  const int64_t n = panel * kPanelRows + row;
  const Activations& x = args.x;
  float acc = 0.0f;  // of token half_warp, where there is one
  for (int64_t first = 0; first < blocks; first += Shape::kStage) {
    const int stage = static_cast<int>(Smaller<int64_t>(Shape::kStage, blocks - first));
    for (int b = half_warp; b < stage; b += kHalfWarps) {
      const uint8_t* block = weights + (first + b) * Format::P16::kBytes;
      int32_t sums[kTokens];
      FewProducts<Format, kTokens>(block, row, x.q + (first + b) * Format::kBlock, x.q_stride,
                                   args.rows, sums);
      for (int t = 0; t < kTokens; ++t) products[(b * kTokens + t) * kPanelRows + row] = sums[t];
      if constexpr (Format::kHasMin) {
        for (int t = 0; t < kTokens; ++t) {
          if (t >= args.rows) break;
          const int16_t* bsum = x.bsum + t * x.bsum_stride + (first + b) * Format::kBlock / 16;
          minimums[(b * kTokens + t) * kPanelRows + row] = FewMinimum<Format>(block, row, bsum);
        }
      }
    }
    SyncBlock();
    if (half_warp < args.rows) {
      for (int b = 0; b < stage; ++b) {
        const uint8_t* block = weights + (first + b) * Format::P16::kBytes;
        const float dx = x.d[half_warp * x.d_stride + first + b];
        const int at = (b * kTokens + half_warp) * kPanelRows + row;
        acc = Fma(static_cast<float>(products[at]), Format::D(block, row) * dx, acc);
        if constexpr (Format::kHasMin) {
          acc = Fma(static_cast<float>(minimums[at]), Format::MinScale(block, row) * dx, acc);
        }
      }
    }
    SyncBlock();
  }
  if (half_warp < args.rows && n < args.n) StoreProduct(args, half_warp, n, acc);
}

// --- tile

constexpr int kTileWarps = 4;
constexpr int kTileThreads = kTileWarps * kWarp;
constexpr int kTokensOfMma = 8;
constexpr int kStageK = 256;                   // k of the activations that are shared at a time
constexpr int kStageQuads = kStageK / 4;       // in dwords
constexpr int kStageStride = kStageQuads + 4;  // so that quads of 8 tokens are in 32 banks

template <typename Format, int kMmas>
struct TileShape {
  static constexpr int kTokens = kMmas * kTokensOfMma;
  static constexpr int kStageBlocks = kStageK / Format::kBlock;
  static constexpr int kSubBlocks = kStageK / Format::kSubBlock;
  static constexpr int kQuads = kTokens * kStageStride;
};

// Copies 256 k (what is left of them) of the tile's activations; tokens that are not there are 0.
template <int kTokens, typename Shared>
DT_DEVICE void BeginStage(const DeviceMatmulArgs& args, int64_t first_token, int64_t k,
                          Shared& quads, int buffer) {
  constexpr int kVectors = kStageK / 16;
  for (int i = ThreadIndex(); i < kTokens * kVectors; i += BlockThreads()) {
    const int token = i / kVectors, at = i % kVectors;
    const int64_t from = k + at * 16;
    const int to = buffer + token * kStageStride + at * 4;
    if (first_token + token < args.rows && from < args.k) {
      CopyAsync16(quads, to, args.x.q + (first_token + token) * args.x.q_stride + from);
    } else {
      WriteShared<Int4>(quads, to, Int4{0, 0, 0, 0});
    }
  }
  CommitCopies();
}

// The scales of the stage's activations, and the sums of their sub-blocks.
template <typename Format, int kMmas, typename Floats, typename Ints>
DT_DEVICE void LoadStageScales(const DeviceMatmulArgs& args, int64_t first_token, int64_t k,
                               int blocks, Floats& dx, Ints& sums) {
  using Shape = TileShape<Format, kMmas>;
  const Activations& x = args.x;
  for (int i = ThreadIndex(); i < Shape::kTokens * blocks; i += BlockThreads()) {
    const int64_t token = first_token + i / blocks;
    const int64_t b = k / Format::kBlock + i % blocks;
    dx[i / blocks * Shape::kStageBlocks + i % blocks] =
        token < args.rows ? x.d[token * x.d_stride + b] : 0.0f;
  }
  if constexpr (Format::kHasMin) {
    constexpr int kPerBlock = Format::kBlock / Format::kSubBlock;
    const int subs = blocks * kPerBlock;
    for (int i = ThreadIndex(); i < Shape::kTokens * subs; i += BlockThreads()) {
      const int64_t token = first_token + i / subs;
      const int16_t* bsum = x.bsum + token * x.bsum_stride + k / 16;
      sums[i / subs * Shape::kSubBlocks + i % subs] =
          token < args.rows ? SubBlockSum<Format>(bsum, i % subs) : 0;
    }
  }
}

// One lane's part of a panel and its tokens: c[2 r + i] of an Mma is weight row g + 8 r, token 2 t
// + i.
template <int kMmas>
struct TileSums {
  float acc[kMmas][4];
};

// Adds Scale(rows g, g + 8) times the products of one sub-block.
template <typename Format>
DT_DEVICE void AddScaled(const uint8_t* block, int sub_block, int g, const int32_t (&c)[4],
                         int32_t (&sums)[4]) {
  const int upper = Format::Scale(block, sub_block, g);
  const int lower = Format::Scale(block, sub_block, g + 8);
  sums[0] += upper * c[0];
  sums[1] += upper * c[1];
  sums[2] += lower * c[2];
  sums[3] += lower * c[3];
}

// The integers of chunk `chunk` (16 or 32 k) of a block with the tokens of all Mmas; `quads` starts
// at the chunk's first one.
template <typename Format, int kMmas, typename Shared>
DT_DEVICE void TileChunk(const uint8_t* block, int chunk, Shared& quads, int at,
                         int32_t (&sums)[kMmas][4]) {
  const int g = Lane() / 4, t = Lane() % 4;
  int32_t a[4] = {};
  a[0] = static_cast<int32_t>(Format::Quad(block, chunk, t, g));
  a[1] = static_cast<int32_t>(Format::Quad(block, chunk, t, g + 8));
  if constexpr (Format::kBlock >= 32) {
    a[2] = static_cast<int32_t>(Format::Quad(block, chunk, t + 4, g));
    a[3] = static_cast<int32_t>(Format::Quad(block, chunk, t + 4, g + 8));
  }
  DT_UNROLL
  for (int m = 0; m < kMmas; ++m) {
    const int from = at + (m * kTokensOfMma + g) * kStageStride + t;
    if constexpr (Format::kSubBlock >= 32) {
      const int32_t b[2] = {quads[from], quads[from + 4]};
      int32_t c[4] = {};
      MmaK32(c, a, b);
      AddScaled<Format>(block, chunk, g, c, sums[m]);
    } else {
      constexpr int kHalves = Format::kBlock >= 32 ? 2 : 1;
      DT_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        const int32_t a16[2] = {a[2 * half], a[2 * half + 1]};
        const int32_t b[1] = {quads[from + 4 * half]};
        int32_t c[4] = {};
        MmaK16(c, a16, b);
        AddScaled<Format>(block, kHalves * chunk + half, g, c, sums[m]);
      }
    }
  }
}

// The floats of one block: acc = fma(I, d dx, acc), and the minimums' part.
template <typename Format, int kMmas, typename Floats, typename Ints>
DT_DEVICE void AddBlock(const uint8_t* block, int b, Floats& dx, Ints& sub_sums,
                        const int32_t (&sums)[kMmas][4], TileSums<kMmas>* tile) {
  using Shape = TileShape<Format, kMmas>;
  constexpr int kPerBlock = Format::kBlock / Format::kSubBlock;
  const int g = Lane() / 4, t = Lane() % 4;
  const float d[2] = {Format::D(block, g), Format::D(block, g + 8)};
  DT_UNROLL
  for (int m = 0; m < kMmas; ++m) {
    DT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int token = m * kTokensOfMma + 2 * t + i;
      const float scale = dx[token * Shape::kStageBlocks + b];
      DT_UNROLL
      for (int r = 0; r < 2; ++r) {
        float& acc = tile->acc[m][2 * r + i];
        acc = Fma(static_cast<float>(sums[m][2 * r + i]), d[r] * scale, acc);
        if constexpr (Format::kHasMin) {
          int32_t minimum = 0;
          for (int j = 0; j < kPerBlock; ++j) {
            const int sum = sub_sums[token * Shape::kSubBlocks + b * kPerBlock + j];
            minimum += Format::Min(block, j, g + 8 * r) * sum;
          }
          acc = Fma(static_cast<float>(minimum), Format::MinScale(block, g + 8 * r) * scale, acc);
        }
      }
    }
  }
}

template <int kMmas>
DT_DEVICE void StoreTile(const DeviceMatmulArgs& args, int64_t panel, int64_t first_token,
                         const TileSums<kMmas>& tile) {
  const int g = Lane() / 4, t = Lane() % 4;
  for (int m = 0; m < kMmas; ++m) {
    for (int j = 0; j < 4; ++j) {
      const int64_t n = panel * kPanelRows + g + 8 * (j / 2);
      const int64_t token = first_token + m * kTokensOfMma + 2 * t + j % 2;
      if (n < args.n && token < args.rows) StoreProduct(args, token, n, tile.acc[m][j]);
    }
  }
}

// Block x: kTileWarps panels from `begin` on; block y: kMmas * 8 tokens of a group or head.
template <typename Format, int kMmas>
DT_KERNEL void TileKernel(DeviceMatmulArgs args, int64_t begin, int64_t end) {
  using Shape = TileShape<Format, kMmas>;
  constexpr int kChunkQuads = Format::kBlock < 32 ? Format::kBlock / 4 : 8;
  constexpr int kChunks = Format::kBlock < 32 ? 1 : Format::kBlock / 32;
  DT_SHARED(int32_t, quads, 2 * Shape::kQuads);
  DT_SHARED(float, dx, Shape::kTokens* Shape::kStageBlocks);
  DT_SHARED(int32_t, sub_sums, Format::kHasMin ? Shape::kTokens * Shape::kSubBlocks : 1);
  int row_tile = 0;
  if (!SelectRows(&args, &row_tile)) return;
  const int64_t panel = begin + int64_t{BlockIndex()} * kTileWarps + WarpIndex();
  const int64_t first_token = int64_t{row_tile} * Shape::kTokens;
  const uint8_t* block = args.w + panel * (args.k / Format::kBlock) * Format::P16::kBytes;
  TileSums<kMmas> tile = {};
  BeginStage<Shape::kTokens>(args, first_token, 0, quads, 0);
  int buffer = 0;  // where this stage's activations are
  for (int64_t k = 0; k < args.k; k += kStageK) {
    const int stage = static_cast<int>(Smaller<int64_t>(kStageK, args.k - k) / Format::kBlock);
    LoadStageScales<Format, kMmas>(args, first_token, k, stage, dx, sub_sums);
    WaitCopies<0>();
    SyncBlock();
    // Nobody reads the other buffer any more: the wait above was after its last reading.
    if (k + kStageK < args.k) {
      BeginStage<Shape::kTokens>(args, first_token, k + kStageK, quads, Shape::kQuads - buffer);
    }
    if (panel < end) {
      for (int b = 0; b < stage; ++b, block += Format::P16::kBytes) {
        int32_t sums[kMmas][4] = {};
        DT_UNROLL
        for (int chunk = 0; chunk < kChunks; ++chunk) {
          const int at = buffer + (b * kChunks + chunk) * kChunkQuads;
          TileChunk<Format, kMmas>(block, chunk, quads, at, sums);
        }
        AddBlock<Format, kMmas>(block, b, dx, sub_sums, sums, &tile);
      }
    }
    SyncBlock();  // dx and sub_sums are written anew
    buffer = Shape::kQuads - buffer;
  }
  if (panel < end) StoreTile<kMmas>(args, panel, first_token, tile);
}
