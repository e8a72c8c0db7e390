// How products with quantised weights, and rows of them, are started: the kernel for a number of
// rows, for each format of a group. On the host.

constexpr int64_t kFewRows = 32;

// Blocks of the launch in y: tiles of `tokens` rows of each group or head.
static uint32_t RowTiles(DeviceMatmulArgs* args, int64_t tokens) {
  const int64_t rows = args->groups != nullptr ? args->max_group_rows : args->rows;
  args->tiles = static_cast<int32_t>(BlocksOf(rows, tokens));
  const int64_t sets = args->groups != nullptr ? args->max_groups : args->heads;
  return static_cast<uint32_t>(sets * args->tiles);
}

constexpr int kEmbeddingThreads = 128;

template <typename Format>
static void EmbedRows(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = RowGrid(BlocksOf((end - begin) * (args.cols / 4), kEmbeddingThreads));
  DT_LAUNCH(EmbeddingKernel<Format>, grid, kEmbeddingThreads, stream, args, begin, end);
}

template <typename Format, int kTokens>
static void FewProduct(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = {static_cast<uint32_t>(end - begin), RowTiles(&args, kTokens)};
  constexpr int kThreads = FewShape<Format, kTokens>::kThreads;
  DT_LAUNCH((FewKernel<Format, kTokens>), grid, kThreads, stream, args, begin);
}

template <typename Format>
static void TileProduct(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = {static_cast<uint32_t>(BlocksOf(end - begin, kTileWarps)),
                     RowTiles(&args, kTileTokens)};
  DT_LAUNCH(TileKernel<Format>, grid, kTileThreads, stream, args, begin, end);
}

template <typename Format>
static void QuantProduct(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  const int32_t rows = args.groups != nullptr ? args.max_group_rows : args.rows;
  if (rows == 1) {
    FewProduct<Format, 1>(args, begin, end, stream);
  } else if (rows == 2) {
    FewProduct<Format, 2>(args, begin, end, stream);
  } else if (rows <= 8) {
    FewProduct<Format, 8>(args, begin, end, stream);
  } else if (rows <= kFewRows) {
    FewProduct<Format, kMostFewTokens<Format>>(args, begin, end, stream);
  } else {
    TileProduct<Format>(args, begin, end, stream);
  }
}
