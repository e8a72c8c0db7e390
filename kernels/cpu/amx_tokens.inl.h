// How products with AMX cut the activations of a step: groups of rows ("tokens"), of each what
// tiles of up to 16 have. Included once, inside the instruction set's namespace, after
// matmul_quant.inl.h and the tiles.
//
// Tiles of a group are of one size. Where that does not divide it, the last one begins earlier and
// computes a few tokens a second time, in sums of its own: no tile register needs a second shape.
//
// Tile registers belong to the thread. A group configures them where it begins and a slice releases
// them at its end: nothing is held between calls, so any thread may run any slice, no other user of
// tiles is disturbed, and a context switch has no 8 KiB of them to save.

constexpr int kTokensOfTile = 16;
constexpr int kMaxTokenTiles = 8;
// Bytes of activations of a group: they stay in the second-level cache from panel to panel.
constexpr int64_t kGroupBytes = 1 << 20;

// Tiles of sums, of activations and of weights.
constexpr int kSumTile = 0, kTokenTile = 4, kWeightTile = 6;

struct TokenTiles {
  int64_t first;  // token of the step
  int count, rows, tiles;
  alignas(64) float sum[kMaxTokenTiles][kTokensOfTile][16];

  // The first token of a tile, of the group.
  int Begin(int tile) const { return rows * (tile + 1) <= count ? rows * tile : count - rows; }
};

// Takes as many of the `left` tokens from `first` on as belong together, of k <= kGroupBytes.
static inline void BeginTokens(int64_t first, int64_t left, int64_t k, TokenTiles* tokens) {
  int64_t most = kGroupBytes / k;
  if (most > kTokensOfTile) most = most / kTokensOfTile * kTokensOfTile;
  if (most > kTokensOfTile * kMaxTokenTiles) most = kTokensOfTile * kMaxTokenTiles;
  const int64_t groups = (left + most - 1) / most;
  tokens->first = first;
  tokens->count = static_cast<int>((left + groups - 1) / groups);
  tokens->tiles = (tokens->count + kTokensOfTile - 1) / kTokensOfTile;
  tokens->rows = (tokens->count + tokens->tiles - 1) / tokens->tiles;
}

// Weights of `k` elements of k, 4 to a row of a tile.
static inline void ConfigureFor(int k, int token_rows) {
  TileConfig config = {.palette = 1};
  const auto shape = [&config](int tile, int rows, int row_bytes) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
  };
  for (int i = 0; i < 4; ++i) shape(kSumTile + i, token_rows, 64);
  for (int i = 0; i < 2; ++i) shape(kTokenTile + i, token_rows, k);
  for (int i = 0; i < 2; ++i) shape(kWeightTile + i, k / 4, 64);
  ConfigureTiles(config);
}

static inline void StoreSums(const MatmulArgs& args, const TokenTiles& tokens, int64_t panel) {
  for (int i = 0, stored = 0; i < tokens.tiles; ++i) {
    const int begin = tokens.Begin(i), end = begin + tokens.rows;
    StoreSums(args, tokens.first + stored, end - stored, tokens.sum[i][stored - begin], 16, panel);
    stored = end;
  }
}

// Asks for what StoreSums will write of a tile, which is often a page for every token, and is not
// in this core's caches.
static inline void PrefetchOutputs(const MatmulArgs& args, const TokenTiles& tokens, int tile,
                                   int64_t panel) {
  const int64_t first = tokens.first + tokens.Begin(tile);
  const float* y = args.y + first * args.y_stride + 16 * panel;
  for (int t = 0; t < tokens.rows; ++t, y += args.y_stride) __builtin_prefetch(y, 0, 2);
}
