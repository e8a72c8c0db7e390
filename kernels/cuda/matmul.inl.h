// Products with quantised weights: what their kernels share. The integers of a block are summed in
// any order; the blocks' floats are added in increasing k by the one thread that owns the output
// (docs/numerics.md).
//
//   few    (matmul_few.inl.h)    up to 32 activation rows: a block of threads has a panel, and its
//                                warps have blocks of k in turn
//   tile   (matmul_tile.inl.h)   more: a warp has a panel and 64 activation rows
//
// A chunk is 32 k, of blocks of 16 those. Of a tensor-core product lane 4 g + t has weight rows g
// and g + 8: quads t and t + 4 of a chunk of each, and of token g of eight; of the result, c[2 r +
// i] is row g + 8 r, token 2 t + i.

#include "kernels/cuda/store.inl.h"

constexpr int kTokensOfMma = 8;

DT_DEVICE int LowHalf(uint32_t v) { return static_cast<int16_t>(v & 0xffffu); }
DT_DEVICE int HighHalf(uint32_t v) { return static_cast<int32_t>(v) >> 16; }

template <typename Format>
struct ChunkShape {
  static constexpr int kElements = Format::kBlock < 32 ? Format::kBlock : 32;
  static constexpr int kQuads = kElements / 4;
  static constexpr int kSubBlocks =
      kElements > Format::kSubBlock ? kElements / Format::kSubBlock : 1;
  static constexpr int kChunks = Format::kBlock / kElements;  // of a block
  // Which quads a lane has: 2 t and 2 t + 1, which are one load of the activations, or t and t + 4,
  // of which each belongs to a sub-block of 16.
  static constexpr bool kPairs = Format::kSubBlock >= 32;
  static constexpr int kQuadStep = kPairs ? 2 : 1, kNextQuad = kPairs ? 1 : 4;
  static constexpr int kSubBlocksOfBlock = Format::kBlock / Format::kSubBlock;
  // Codebooks take more loads and registers: a thread has fewer chunks under way.
  static constexpr bool kLooksUp = requires { Format::kLooksUp; };
  static constexpr int kAhead = kLooksUp ? 2 : 4;
};

// A lane's part of a panel's chunk: quads of its two rows in turn, the scales of both.
template <typename Format>
struct RowsOfChunk {
  int32_t a[4];
  int scale[ChunkShape<Format>::kSubBlocks][2];
};

template <typename Format>
DT_DEVICE RowsOfChunk<Format> LoadRows(auto block, int chunk) {
  using Shape = ChunkShape<Format>;
  const int g = Lane() / 4, t = Lane() % 4;
  RowsOfChunk<Format> rows = {};
  DT_UNROLL
  for (int i = 0; i < Shape::kQuads / 2; ++i) {
    const int quad = t * Shape::kQuadStep + i / 2 * Shape::kNextQuad;
    rows.a[i] = static_cast<int32_t>(Format::Quad(block, chunk, quad, 2 * g + i % 2));
  }
  DT_UNROLL
  for (int s = 0; s < Shape::kSubBlocks; ++s) {
    rows.scale[s][0] = Format::Scale(block, chunk * Shape::kSubBlocks + s, 2 * g);
    rows.scale[s][1] = Format::Scale(block, chunk * Shape::kSubBlocks + s, 2 * g + 1);
  }
  return rows;
}

DT_DEVICE void AddScaled(const int (&scale)[2], const int32_t (&c)[4], int32_t (&sums)[4]) {
  sums[0] += scale[0] * c[0];
  sums[1] += scale[0] * c[1];
  sums[2] += scale[1] * c[2];
  sums[3] += scale[1] * c[3];
}

// Adds the scaled integers of a chunk; b: the two quads of this lane's token (of a chunk of 16
// there is no second one).
template <typename Format>
DT_DEVICE void MultiplyChunk(const RowsOfChunk<Format>& rows, const int32_t (&b)[2],
                             int32_t (&sums)[4]) {
  if constexpr (Format::kSubBlock >= 32) {
    int32_t c[4] = {};
    MmaK32(c, rows.a, b);
    AddScaled(rows.scale[0], c, sums);
  } else {
    DT_UNROLL
    for (int half = 0; half < ChunkShape<Format>::kQuads / 4; ++half) {
      const int32_t a16[2] = {rows.a[2 * half], rows.a[2 * half + 1]};
      const int32_t b16[1] = {b[half]};
      int32_t c[4] = {};
      MmaK16(c, a16, b16);
      AddScaled(rows.scale[half], c, sums);
    }
  }
}

// --- minimums: the sum over a block's sub-blocks of Min times the sum of their activations. Where
// these are 8 or 16, it is a tensor-core product as well, of the lower 7 bits of the sums and of
// what is above them (a sum has at most 13 bits and a sign).

template <typename Format>
constexpr bool kMinsByMma = Format::kHasMin&& ChunkShape<Format>::kSubBlocksOfBlock > 1;

// Minimums 4 t .. 4 t + 3 of rows 2 g and 2 g + 1, a byte each; 0 behind the last one.
template <typename Format>
DT_DEVICE void LoadMins(auto block, int32_t (&mins)[2]) {
  constexpr int kQuads = ChunkShape<Format>::kSubBlocksOfBlock / 4;
  const int g = Lane() / 4, t = Lane() % 4, quad = t % kQuads;
  uint32_t upper = 0, lower = 0;
  DT_UNROLL
  for (int i = 0; i < 4; ++i) {
    upper |= static_cast<uint32_t>(Format::Min(block, 4 * quad + i, 2 * g)) << (8 * i);
    lower |= static_cast<uint32_t>(Format::Min(block, 4 * quad + i, 2 * g + 1)) << (8 * i);
  }
  mins[0] = t < kQuads ? static_cast<int32_t>(upper) : 0;
  mins[1] = t < kQuads ? static_cast<int32_t>(lower) : 0;
}

// The lowest bytes of four numbers.
DT_DEVICE uint32_t LowBytes(const int32_t (&v)[4]) {
  const uint32_t first =
      BytePermute(static_cast<uint32_t>(v[0]), static_cast<uint32_t>(v[1]), 0x0040);
  const uint32_t last =
      BytePermute(static_cast<uint32_t>(v[2]), static_cast<uint32_t>(v[3]), 0x0040);
  return BytePermute(first, last, 0x5410);
}

// Sums of sub-blocks 4 t .. 4 t + 3 of a token, as bytes: the lower 7 bits, and the rest; behind
// the last one others, which meet zeros. four_of(i): the sums of 16 elements each, two to a dword,
// from the one of element 128 i of the block on; two_of(i): likewise from that of 64 i.
struct SumBytes {
  uint32_t low, high;
};
template <typename Format>
DT_DEVICE SumBytes LoadSums(const auto& four_of, const auto& two_of) {
  const int quad = Lane() % 4 % (ChunkShape<Format>::kSubBlocksOfBlock / 4);
  int32_t sum[4];
  if constexpr (Format::kSubBlock == 16) {
    const Int2 pairs = two_of(quad);
    sum[0] = LowHalf(static_cast<uint32_t>(pairs.x));
    sum[1] = HighHalf(static_cast<uint32_t>(pairs.x));
    sum[2] = LowHalf(static_cast<uint32_t>(pairs.y));
    sum[3] = HighHalf(static_cast<uint32_t>(pairs.y));
  } else {
    const Int4 pairs = four_of(quad);
    sum[0] = SumOfHalves(static_cast<uint32_t>(pairs.x));
    sum[1] = SumOfHalves(static_cast<uint32_t>(pairs.y));
    sum[2] = SumOfHalves(static_cast<uint32_t>(pairs.z));
    sum[3] = SumOfHalves(static_cast<uint32_t>(pairs.w));
  }
  const int32_t above[4] = {sum[0] >> 7, sum[1] >> 7, sum[2] >> 7, sum[3] >> 7};
  return {LowBytes(sum) & 0x7f7f7f7fu, LowBytes(above)};
}

DT_DEVICE void MultiplyMins(const int32_t (&mins)[2], const SumBytes& sums, int32_t (&minimum)[4]) {
  int32_t low[4] = {}, high[4] = {};
  const int32_t b_low[1] = {static_cast<int32_t>(sums.low)};
  const int32_t b_high[1] = {static_cast<int32_t>(sums.high)};
  MmaK16(low, mins, b_low);
  MmaK16(high, mins, b_high);
  DT_UNROLL
  for (int i = 0; i < 4; ++i) minimum[i] = high[i] * 128 + low[i];
}
