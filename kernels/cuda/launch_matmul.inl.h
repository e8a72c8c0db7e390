// How products with quantised weights are started: the kernel for a number of rows, for each format
// of a group. On the host.

constexpr int64_t kFewRows = 8;

template <typename Format>
static void FewProduct(const MatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = RowGrid(end - begin);
  if (args.rows == 1) {
    DT_LAUNCH((FewKernel<Format, 1>), grid, kFewThreads, stream, args, begin);
  } else if (args.rows <= 4) {
    DT_LAUNCH((FewKernel<Format, 4>), grid, kFewThreads, stream, args, begin);
  } else {
    DT_LAUNCH((FewKernel<Format, 8>), grid, kFewThreads, stream, args, begin);
  }
}

template <typename Format, int kMmas>
static void TileProduct(const MatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = {static_cast<uint32_t>(BlocksOf(end - begin, kTileWarps)),
                     static_cast<uint32_t>(BlocksOf(args.rows, kMmas * kTokensOfMma))};
  DT_LAUNCH((TileKernel<Format, kMmas>), grid, kTileThreads, stream, args, begin, end);
}

template <typename Format>
static void QuantProduct(const MatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  if (args.rows <= kFewRows) {
    FewProduct<Format>(args, begin, end, stream);
  } else if (args.rows <= 2 * kTokensOfMma) {
    TileProduct<Format, 2>(args, begin, end, stream);
  } else {
    TileProduct<Format, 8>(args, begin, end, stream);
  }
}
