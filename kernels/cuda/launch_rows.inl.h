// How ops on rows, of experts, and of the KV cache are started: shapes of grids and the choice
// among variants, on the host.

// Blocks of kRowThreads with a thread, or a warp, for each unit.
static Grid ThreadGrid(int64_t threads) { return RowGrid(BlocksOf(threads, kRowThreads)); }
static Grid WarpGrid(int64_t warps) { return RowGrid(BlocksOf(warps, kRowThreads / kWarp)); }

// A block for each row and as many beside it as its columns need, kRowThreads threads in each, with
// `per_thread` columns for a thread.
static Grid ColumnGrid(int64_t rows, int64_t cols, int64_t per_thread) {
  return {static_cast<uint32_t>(rows),
          static_cast<uint32_t>(BlocksOf(cols, per_thread * kRowThreads))};
}

// Whether rows that are `stride` elements apart all begin on `bytes`.
template <typename T>
static bool RowsLieOn(int64_t bytes, const T* rows, int64_t stride) {
  const int64_t apart = stride * static_cast<int64_t>(sizeof(T));
  return reinterpret_cast<uintptr_t>(rows) % bytes == 0 && apart % bytes == 0;
}

// Calls run.template operator()<kWidth>() with how many neighbours a kernel loads at once.
template <typename Run>
static void WithWidth(bool wide, const Run& run) {
  if (wide) return run.template operator()<4>();
  run.template operator()<1>();
}

static void RmsNorm(const RmsNormArgs& args, int64_t begin, int64_t end, Stream stream) {
  if (args.cols <= 4 * kWarp) {
    DT_LAUNCH(RmsNormShortKernel<4>, WarpGrid(end - begin), kRowThreads, stream, args, begin, end);
    return;
  }
  if (args.cols <= 16 * kWarp) {
    DT_LAUNCH(RmsNormShortKernel<16>, WarpGrid(end - begin), kRowThreads, stream, args, begin, end);
    return;
  }
  const bool wide = args.cols % 4 == 0 && RowsLieOn(16, args.x, args.x_stride) &&
                    RowsLieOn(16, args.y, args.y_stride) && RowsLieOn(16, args.weight, 0);
  WithWidth(wide, [&]<int kWidth>() {
    DT_LAUNCH((RmsNormKernel<kWidth, 0>), RowGrid(end - begin), kNormThreads, stream, args,
              Activations{}, begin);
  });
}

template <int kBlock>
static void QuantizeBlocks(const Activations& x, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = ColumnGrid(end - begin, x.cols, kQuantizePer);
  if (RowsLieOn(16, x.f32, x.f32_stride) && RowsLieOn(8, x.q, x.q_stride)) {
    DT_LAUNCH((QuantizeKernel<kBlock, true>), grid, kRowThreads, stream, x, begin);
  } else {
    DT_LAUNCH((QuantizeKernel<kBlock, false>), grid, kRowThreads, stream, x, begin);
  }
}

static void Quantize(const QuantizeArgs& args, int64_t begin, int64_t end, Stream stream) {
  switch (args.x.block) {
    case 16:
      return QuantizeBlocks<16>(args.x, begin, end, stream);
    case 32:
      return QuantizeBlocks<32>(args.x, begin, end, stream);
    default:
      return QuantizeBlocks<256>(args.x, begin, end, stream);
  }
}

// Calls run.template operator()<kBlock>() with the block of a form.
template <typename Run>
static void WithForm(int32_t block, const Run& run) {
  switch (block) {
    case 16:
      return run.template operator()<16>();
    case 32:
      return run.template operator()<32>();
    default:
      return run.template operator()<256>();
  }
}

static bool IsWide(const Activations& form) {
  return RowsLieOn(16, form.f32, form.f32_stride) && RowsLieOn(8, form.q, form.q_stride);
}

// form.f32 is args.y.
static void RmsNormQuantize(const RmsNormArgs& args, const Activations& form, int64_t begin,
                            int64_t end, Stream stream) {
  const bool wide = args.cols > 16 * kWarp && args.cols % kQuantizePer == 0 && IsWide(form) &&
                    RowsLieOn(16, args.x, args.x_stride) && RowsLieOn(16, args.weight, 0);
  if (!wide) {
    RmsNorm(args, begin, end, stream);
    return Quantize({form}, begin, end, stream);
  }
  WithForm(form.block, [&]<int kBlock>() {
    DT_LAUNCH((RmsNormKernel<4, kBlock>), RowGrid(end - begin), kNormThreads, stream, args, form,
              begin);
  });
}

template <typename Op>
static void Gated(const GatedArgs& args, int64_t begin, int64_t end, Stream stream) {
  const bool wide = args.cols % 4 == 0 && RowsLieOn(16, args.gate, args.in_stride) &&
                    RowsLieOn(16, args.up, args.in_stride) && RowsLieOn(16, args.y, args.y_stride);
  WithWidth(wide, [&]<int kWidth>() {
    const Grid grid = ColumnGrid(end - begin, args.cols, kWidth);
    DT_LAUNCH((GatedKernel<Op, kWidth>), grid, kRowThreads, stream, args, begin);
  });
}

// form.f32 is args.y.
template <typename Op>
static void GatedQuantize(const GatedArgs& args, const Activations& form, int64_t begin,
                          int64_t end, Stream stream) {
  const bool wide = args.cols % kQuantizePer == 0 && IsWide(form) &&
                    RowsLieOn(16, args.gate, args.in_stride) &&
                    RowsLieOn(16, args.up, args.in_stride);
  if (!wide) {
    Gated<Op>(args, begin, end, stream);
    return Quantize({form}, begin, end, stream);
  }
  WithForm(form.block, [&]<int kBlock>() {
    const Grid grid = ColumnGrid(end - begin, args.cols, kQuantizePer);
    DT_LAUNCH((GatedQuantizeKernel<Op, kBlock>), grid, kRowThreads, stream, args, form, begin);
  });
}

static void Sigmoid(const float* x, float* y, int64_t n, Stream stream) {
  DT_LAUNCH(SigmoidKernel, ThreadGrid(n), kRowThreads, stream, x, y, n);
}

static void Combine(const CombineArgs& args, int64_t begin, int64_t end, Stream stream) {
  const bool wide = args.cols % 4 == 0 && RowsLieOn(16, args.y, args.y_stride) &&
                    RowsLieOn(16, args.x, args.x_stride);
  WithWidth(wide, [&]<int kWidth>() {
    const Grid grid = ColumnGrid(end - begin, args.cols, kWidth);
    DT_LAUNCH(CombineKernel<kWidth>, grid, kRowThreads, stream, args, begin);
  });
}

static void Rope(const RopeArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = ColumnGrid(end - begin, int64_t{args.num_heads} * (args.rope_dim / 2), 1);
  DT_LAUNCH(RopeKernel, grid, kRowThreads, stream, args, begin);
}

static void CheckFinite(const float* x, int64_t stride, int64_t rows, int64_t cols, int32_t* flag,
                        Stream stream) {
  WithWidth(cols % 4 == 0 && RowsLieOn(16, x, stride), [&]<int kWidth>() {
    const Grid grid = ColumnGrid(rows, cols, kWidth);
    DT_LAUNCH(FiniteKernel<kWidth>, grid, kRowThreads, stream, x, stride, cols, flag);
  });
}

static void CopyRows(const CopyRowsArgs& args, int64_t begin, int64_t end, Stream stream) {
  const bool wide = args.cols % 4 == 0 && RowsLieOn(16, args.from, args.from_stride) &&
                    RowsLieOn(16, args.to, args.to_stride);
  WithWidth(wide, [&]<int kWidth>() {
    const Grid grid = ColumnGrid(end - begin, args.cols, kWidth);
    DT_LAUNCH(CopyRowsKernel<kWidth>, grid, kRowThreads, stream, args, begin);
  });
}

// Blocks for the longest piece, but no more than keep a bus busy. How long those are that something
// counts is not known here.
static int32_t CopyBlocks(const CopyPieces& pieces) {
  constexpr int64_t kMost = 64, kOfCounted = 16;
  constexpr int64_t kBlockBytes = int64_t{16} * kCopyThreads * kCopyLoads;
  int64_t blocks = 1;
  for (int i = 0; i < pieces.num; ++i) {
    const CopyPiece& piece = pieces.pieces[i];
    int64_t wanted = BlocksOf(piece.bytes, kBlockBytes);
    if (piece.count != nullptr && wanted < kOfCounted) wanted = kOfCounted;
    if (wanted > blocks) blocks = wanted;
  }
  return static_cast<int32_t>(blocks < kMost ? blocks : kMost);
}

static void RunCopyPieces(const CopyPieces& pieces, const DoneSignal& signal, Stream stream) {
  if (pieces.num == 0 && signal.flag == nullptr) return;
  const int32_t blocks = CopyBlocks(pieces);
  const int32_t rows = pieces.num > 0 ? pieces.num : 1;
  const Grid grid = {static_cast<uint32_t>(blocks), static_cast<uint32_t>(rows)};
  DT_LAUNCH(CopyPiecesKernel, grid, kCopyThreads, stream, pieces, signal, blocks);
}

static void Router(const RouterArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = WarpGrid(end - begin);
  const bool lanes = args.logits != nullptr && args.num_used <= kWarp;
  if (lanes && args.count <= 4 * kWarp) {
    DT_LAUNCH(RouterLanesKernel<4>, grid, kRowThreads, stream, args, begin, end);
  } else if (lanes && args.count <= 8 * kWarp) {
    DT_LAUNCH(RouterLanesKernel<8>, grid, kRowThreads, stream, args, begin, end);
  } else if (lanes && args.count <= 16 * kWarp) {
    DT_LAUNCH(RouterLanesKernel<16>, grid, kRowThreads, stream, args, begin, end);
  } else {
    DT_LAUNCH(RouterKernel, grid, kRowThreads, stream, args, begin, end);
  }
}

static void SortPairs(const SortPairsArgs& args, Stream stream) {
  DT_LAUNCH(SortPairsKernel, RowGrid(1), kSortThreads, stream, args);
}

static void GatherRows(const GatherRowsArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = ColumnGrid(end - begin, args.to.cols, kGatherPer);
  DT_LAUNCH(GatherRowsKernel, grid, kRowThreads, stream, args, begin);
}

static void KvAppend(const KvAppendArgs& args, int64_t begin, int64_t end, int32_t* flag,
                     Stream stream) {
  const Grid grid = WarpGrid((end - begin) * args.kv.shape.num_heads);
  DT_LAUNCH(KvAppendKernel, grid, kRowThreads, stream, args, begin, end, flag);
}

static void RopeAppend(const RopeArgs& q, const RopeArgs& k, const KvAppendArgs& append,
                       int64_t begin, int64_t end, int32_t* flag, Stream stream) {
  if (k.num_heads != append.kv.shape.num_heads) {
    Rope(q, begin, end, stream);
    Rope(k, begin, end, stream);
    return KvAppend(append, begin, end, flag, stream);
  }
  const Grid grid = WarpGrid((end - begin) * (q.num_heads + k.num_heads));
  DT_LAUNCH(RopeAppendKernel, grid, kRowThreads, stream, q, k, append, begin, end, flag);
}
