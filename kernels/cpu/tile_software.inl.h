// A model of AMX's tile registers, with which tests run the code of matmul_amx.inl.h on processors
// without them: the names of tile_amx.inl.h. What the processor would fault on is a trap. Included
// once, inside the instruction set's namespace.

struct SoftwareTiles {
  int rows[8], row_bytes[8];  // all zero: not configured
  alignas(64) uint8_t bytes[8][16][64];
};
static thread_local constinit SoftwareTiles tiles = {};

static inline void Demand(bool condition) {
  if (!condition) __builtin_trap();
}

static void ConfigureTiles(const TileConfig& config) {
  Demand(config.palette == 1 && config.start_row == 0);
  for (uint8_t byte : config.reserved) Demand(byte == 0);
  for (int i = 0; i < 16; ++i) {
    Demand(config.rows[i] <= (i < 8 ? 16 : 0) && config.row_bytes[i] <= (i < 8 ? 64 : 0));
  }
  for (int i = 0; i < 8; ++i) {
    tiles.rows[i] = config.rows[i];
    tiles.row_bytes[i] = config.row_bytes[i];
  }
  __builtin_memset(tiles.bytes, 0, sizeof(tiles.bytes));
}
static void ReleaseTiles() { __builtin_memset(&tiles, 0, sizeof(tiles)); }

static inline void DemandShape(int tile) {
  Demand(tiles.rows[tile] > 0 && tiles.row_bytes[tile] > 0);
}
template <int kTile>
static void ZeroTile() {
  DemandShape(kTile);
  __builtin_memset(tiles.bytes[kTile], 0, sizeof(tiles.bytes[kTile]));
}
// `stride` bytes from row to row of memory; what is outside the tile's shape becomes zero.
template <int kTile>
static void LoadTile(const void* from, int64_t stride) {
  ZeroTile<kTile>();
  for (int r = 0; r < tiles.rows[kTile]; ++r) {
    __builtin_memcpy(tiles.bytes[kTile][r], static_cast<const uint8_t*>(from) + r * stride,
                     static_cast<size_t>(tiles.row_bytes[kTile]));
  }
}
template <int kTile>
static void StoreTile(void* to, int64_t stride) {
  DemandShape(kTile);
  for (int r = 0; r < tiles.rows[kTile]; ++r) {
    __builtin_memcpy(static_cast<uint8_t*>(to) + r * stride, tiles.bytes[kTile][r],
                     static_cast<size_t>(tiles.row_bytes[kTile]));
  }
}
template <int kSum, int kTokens, int kWeights>
static void DemandProduct() {
  static_assert(kSum != kTokens && kSum != kWeights && kTokens != kWeights);
  for (int tile : {kSum, kTokens, kWeights}) DemandShape(tile);
  Demand(tiles.rows[kTokens] == tiles.rows[kSum]);
  Demand(tiles.row_bytes[kTokens] == 4 * tiles.rows[kWeights]);
  Demand(tiles.row_bytes[kSum] == tiles.row_bytes[kWeights]);
}
// Lane n of row m of the sums += the products of bytes 4 g .. 4 g + 3 of row m of the tokens' tile
// with those of lane n of row g of the weights' one, for every g; modulo 2^32 (TDPBSSD, TDPBSUD).
template <int kSum, int kTokens, int kWeights, bool kSignedWeights = false>
static void DotTiles() {
  DemandProduct<kSum, kTokens, kWeights>();
  const int rows = tiles.rows[kSum], groups = tiles.rows[kWeights];
  for (int m = 0; m < rows; ++m) {
    for (int n = 0; n < tiles.row_bytes[kSum] / 4; ++n) {
      uint32_t sum;
      __builtin_memcpy(&sum, &tiles.bytes[kSum][m][4 * n], sizeof(sum));
      for (int g = 0; g < groups; ++g) {
        for (int b = 0; b < 4; ++b) {
          const auto x = static_cast<int8_t>(tiles.bytes[kTokens][m][4 * g + b]);
          const uint8_t w = tiles.bytes[kWeights][g][4 * n + b];
          sum += static_cast<uint32_t>(x * (kSignedWeights ? static_cast<int8_t>(w) : w));
        }
      }
      __builtin_memcpy(&tiles.bytes[kSum][m][4 * n], &sum, sizeof(sum));
    }
  }
}
// The same of bf16, two to a lane, with sums of f32 (TDPBF16PS, for whole numbers small enough to
// be exact in any order).
template <int kSum, int kTokens, int kWeights>
static void DotTilesBf16() {
  DemandProduct<kSum, kTokens, kWeights>();
  const auto value = [](const uint8_t* from) {
    uint16_t half;
    __builtin_memcpy(&half, from, sizeof(half));
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float f;
    __builtin_memcpy(&f, &bits, sizeof(f));
    return f;
  };
  for (int m = 0; m < tiles.rows[kSum]; ++m) {
    for (int n = 0; n < tiles.row_bytes[kSum] / 4; ++n) {
      float sum;
      __builtin_memcpy(&sum, &tiles.bytes[kSum][m][4 * n], sizeof(sum));
      for (int g = 0; g < tiles.rows[kWeights]; ++g) {
        for (int b = 0; b < 4; b += 2) {
          sum += value(&tiles.bytes[kTokens][m][4 * g + b]) *
                 value(&tiles.bytes[kWeights][g][4 * n + b]);
        }
      }
      __builtin_memcpy(&tiles.bytes[kSum][m][4 * n], &sum, sizeof(sum));
    }
  }
}
