// How products with weights of floats are started, on the host.

// Panels [begin, end) in blocks of `block_rows` weight rows and `block_tokens` rows of activations.
struct FloatLaunch {
  int64_t first, past;
  Grid grid;
};
static FloatLaunch LaunchOf(DeviceMatmulArgs* args, int64_t begin, int64_t end, int block_rows,
                            int block_tokens) {
  const int64_t first = begin * kPanelRows;
  const int64_t past = end * kPanelRows < args->n ? end * kPanelRows : args->n;
  return {
      first,
      past,
      {static_cast<uint32_t>(BlocksOf(past - first, block_rows)), RowTiles(args, block_tokens)}};
}

template <WeightType kType, int kTokens>
static void FloatFew(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  constexpr int kThreads = kFloatWarps * kWarp;
  constexpr int64_t kMany = 4096;  // weight rows: warps with two of them are still enough
  if (args.n * SetsOf(args) < kMany) {
    const FloatLaunch l = LaunchOf(&args, begin, end, kFloatWarps, kTokens);
    DT_LAUNCH((FloatFewKernel<kType, kTokens, 1>), l.grid, kThreads, stream, args, l.first, l.past);
  } else {
    const FloatLaunch l = LaunchOf(&args, begin, end, 2 * kFloatWarps, kTokens);
    DT_LAUNCH((FloatFewKernel<kType, kTokens, 2>), l.grid, kThreads, stream, args, l.first, l.past);
  }
}

// Whether all rows of a product begin on 16 bytes.
static bool FloatRowsLieOn16(const DeviceMatmulArgs& args, int64_t element_bytes) {
  return RowsLieOn(16, args.w, args.w_stride) && args.k * element_bytes % 16 == 0 &&
         RowsLieOn(16, args.x.f32, args.x.f32_stride) && args.x.f32_stride / args.heads % 4 == 0;
}

// False: rows lie anywhere, or there would be too few blocks for the multiprocessors of a GPU.
template <WeightType kType, int kTokenWarps>
static bool FloatTile(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  using Tile = FloatTileShape<kType, kTokenWarps>;
  constexpr int64_t kEnough = 96;
  const FloatLaunch l = LaunchOf(&args, begin, end, Tile::kRows, Tile::kTokens);
  if (int64_t{l.grid.x} * l.grid.y < kEnough) return false;
  if (!FloatRowsLieOn16(args, sizeof(typename FloatWeight<kType>::Stored))) return false;
  DT_LAUNCH((FloatTileKernel<kType, kTokenWarps>), l.grid, Tile::kThreads, stream, args, l.first,
            l.past);
  return true;
}

// Tiles read weights once for many rows of activations. Few rows have a warp for each weight row,
// and so have matrices that are too small for tiles: there what counts is how many loads are under
// way.
template <WeightType kType>
static void FloatProduct(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  const int64_t rows = MostRowsOf(args);
  if (rows == 1) return FloatFew<kType, 1>(args, begin, end, stream);
  if (rows == 2) return FloatFew<kType, 2>(args, begin, end, stream);
  if (rows > 16 && FloatTile<kType, 4>(args, begin, end, stream)) return;
  if (rows > 8 && FloatTile<kType, 2>(args, begin, end, stream)) return;
  if (rows > 4 && FloatTile<kType, 1>(args, begin, end, stream)) return;
  FloatFew<kType, 4>(args, begin, end, stream);
}
