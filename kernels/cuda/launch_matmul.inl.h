// How products with quantised weights, and rows of them, are started: the kernel for a number of
// rows, for each format of a group. On the host.

constexpr int64_t kFewRows = 32;
constexpr int64_t kEnoughTiles = 256;

// Blocks of the launch in x: of `panels` panels each, of [begin, end) and of the matrices beside
// it.
static uint32_t PanelBlocks(const DeviceMatmulArgs& args, int64_t begin, int64_t end,
                            int64_t panels) {
  int64_t blocks = BlocksOf(end - begin, panels);
  for (int i = 0; i < args.num_beside; ++i) {
    blocks += BlocksOf(args.beside[i].n, panels * kPanelRows);
  }
  return static_cast<uint32_t>(blocks);
}

constexpr int kEmbeddingThreads = 128;

template <typename Format>
static void EmbedRows(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = RowGrid(BlocksOf((end - begin) * (args.cols / 4), kEmbeddingThreads));
  DT_LAUNCH(EmbeddingKernel<Format>, grid, kEmbeddingThreads, stream, args, begin, end);
}

template <typename Format, int kTokens>
static void FewProduct(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = {PanelBlocks(args, begin, end, 1), RowTiles(&args, kTokens)};
  constexpr int kThreads = FewShape<Format, kTokens>::kThreads;
  DT_LAUNCH((FewKernel<Format, kTokens>), grid, kThreads, stream, args, begin);
}

template <typename Format, int kMmas>
static void TileProduct(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = {PanelBlocks(args, begin, end, kTileWarps),
                     RowTiles(&args, TileShape<Format, kMmas>::kTokens)};
  DT_LAUNCH((TileKernel<Format, kMmas>), grid, kTileThreads, stream, args, begin, end);
}

template <typename Format>
static void QuantProduct(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  const int32_t rows = MostRowsOf(args);
  // Tiles read weights once for more rows, but only blocks enough have them on their way in time.
  const bool tiles = PanelBlocks(args, begin, end, kTileWarps) * SetsOf(args) >= kEnoughTiles;
  if (rows == 1) {
    FewProduct<Format, 1>(args, begin, end, stream);
  } else if (rows == 2) {
    FewProduct<Format, 2>(args, begin, end, stream);
  } else if (rows <= 8 && !tiles) {
    FewProduct<Format, 8>(args, begin, end, stream);
  } else if (rows <= kFewRows && !tiles) {
    FewProduct<Format, kMostFewTokens<Format>>(args, begin, end, stream);
  } else if (rows <= 16) {
    TileProduct<Format, 2>(args, begin, end, stream);
  } else if (rows <= 32) {
    TileProduct<Format, 4>(args, begin, end, stream);
  } else {
    TileProduct<Format, 8>(args, begin, end, stream);
  }
}
