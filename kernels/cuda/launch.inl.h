// How each op is started, and the table of all of them: the shapes of grids and the choice among
// variants, on the host.

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

// Calls run.template operator()<kType>() with a cache's type.
template <typename Run>
static void WithKvType(KvType type, const Run& run) {
  switch (type) {
    case KvType::kF32:
      return run.template operator()<KvType::kF32>();
    case KvType::kF16:
      return run.template operator()<KvType::kF16>();
    case KvType::kBF16:
      return run.template operator()<KvType::kBF16>();
    case KvType::kQ8_0:
      return run.template operator()<KvType::kQ8_0>();
  }
}

// Tasks [begin, end) of sequences with at least `tile_rows` rows.
static void AttentionTiles(const AttentionArgs& args, int64_t begin, int64_t end, int32_t tile_rows,
                           Stream stream) {
  const int64_t groups = args.num_heads / args.heads_per_task;
  const int64_t sharing = args.num_heads / args.kv.shape.num_heads;
  const int64_t rows = BlocksOf(end, groups) - begin / groups;
  // The last tile of each sequence may have a single query.
  const int64_t sequences = args.num_sequences < rows ? args.num_sequences : rows;
  const int64_t tiles = (rows * sharing + sequences * (kTileQueries - 1)) / kTileQueries;
  const Grid grid = {static_cast<uint32_t>(tiles), static_cast<uint32_t>(args.kv.shape.num_heads)};
  WithKvType(args.kv.type, [&]<KvType kType>() {
    if (args.kv.shape.value_dim <= 4 * kWarp / 2) {
      DT_LAUNCH((AttentionTileKernel<kType, kWarp / 2>), grid, kAttentionThreads, stream, args,
                begin, end, tile_rows, tiles);
    } else {
      DT_LAUNCH((AttentionTileKernel<kType, kWarp>), grid, kAttentionThreads, stream, args, begin,
                end, tile_rows, tiles);
    }
  });
}

// Whether AttentionRowsKernel can read the vectors: 16 bytes at a time, and a token's scales at
// once.
static bool RowsInVectors(const AttentionArgs& args) {
  const KvShape& shape = args.kv.shape;
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return shape.key_dim % 16 == 0 && shape.value_dim % 16 == 0 && args.q_stride % 4 == 0 &&
         args.kv.block_bytes % 16 == 0 && aligned(args.q) && aligned(args.kv.data) &&
         (args.kv.type != KvType::kQ8_0 ||
          (shape.key_dim <= kMostScaledDims && shape.value_dim <= kMostScaledDims));
}

// Heads of a block of AttentionRowsKernel: as many as there are, or fewer so that a GPU has blocks
// enough. units: of tasks, or splits of one. With one head, a block has the least to do.
static int32_t RowHeads(const AttentionArgs& args, int64_t units) {
  const bool latent = args.kv.shape.layout == KvLayout::kLatent;
  const int32_t least = latent ? 4 : 1;
  const int64_t enough = latent ? 128 : 64;
  int32_t heads = kRowHeads;
  while (heads > least && (heads / 2 >= args.heads_per_task ||
                           units * BlocksOf(args.heads_per_task, heads) < enough)) {
    heads /= 2;
  }
  return heads;
}

template <KvType kType>
static void StartRows(const AttentionArgs& args, const RowPlan& plan, Grid grid, int32_t heads,
                      int32_t tile_rows, Stream stream) {
  if (args.kv.shape.layout == KvLayout::kLatent) {
    if (heads == 4) {
      DT_LAUNCH((AttentionRowsKernel<kType, 4, true>), grid, kRowsThreads, stream, args, plan,
                tile_rows);
    } else {
      DT_LAUNCH((AttentionRowsKernel<kType, 8, true>), grid, kRowsThreads, stream, args, plan,
                tile_rows);
    }
  } else if (heads == 1) {
    DT_LAUNCH((AttentionRowsKernel<kType, 1, false>), grid, kRowsThreads, stream, args, plan,
              tile_rows);
  } else if (heads == 2) {
    DT_LAUNCH((AttentionRowsKernel<kType, 2, false>), grid, kRowsThreads, stream, args, plan,
              tile_rows);
  } else if (heads == 4) {
    DT_LAUNCH((AttentionRowsKernel<kType, 4, false>), grid, kRowsThreads, stream, args, plan,
              tile_rows);
  } else {
    DT_LAUNCH((AttentionRowsKernel<kType, 8, false>), grid, kRowsThreads, stream, args, plan,
              tile_rows);
  }
}

// Tasks [first, past): splits [begin, end) of each in parts or, where end is 0, all of them.
static void AttentionRows(const AttentionArgs& args, int64_t first, int64_t past, int64_t begin,
                          int64_t end, int32_t tile_rows, Stream stream) {
  const int64_t splits = end > 0 ? end - begin : 1;
  const int32_t heads = RowHeads(args, (past - first) * splits);
  const KvShape& shape = args.kv.shape;
  const int64_t blocks_of_task = BlocksOf(args.heads_per_task, heads);
  const int64_t tasks_of_row = args.num_heads / args.heads_per_task;
  const bool latent = shape.layout == KvLayout::kLatent;
  const int64_t key_bytes = KvPartBytes(args.kv.type, shape.key_dim);
  const RowPlan plan = {
      .first_task = static_cast<int32_t>(first),
      .first_split = static_cast<int32_t>(begin),
      .in_parts = end > 0,
      .heads = static_cast<int32_t>(BlocksOf(args.heads_per_task, blocks_of_task)),
      .blocks_of_task = DivisorOf(blocks_of_task),
      .blocks_of_row = DivisorOf(blocks_of_task * tasks_of_row),
      .tasks_of_kv_head = DivisorOf(tasks_of_row / shape.num_heads),
      .values_at = latent ? 0 : shape.num_heads * key_bytes,
      .key_bytes = key_bytes,
      .value_bytes = latent ? key_bytes : KvPartBytes(args.kv.type, shape.value_dim)};
  const Grid grid = {static_cast<uint32_t>((past - first) * blocks_of_task),
                     static_cast<uint32_t>(splits)};
  WithKvType(args.kv.type,
             [&]<KvType kType>() { StartRows<kType>(args, plan, grid, heads, tile_rows, stream); });
}

// Tiles are for sequences whose rows fill half of one, unless each has a single row and the heads
// of all of them are few tiles. Which kernel has a row follows from what the host knows of the
// step: neither positions nor rows of single sequences, which differ when a graph is started again;
// blocks look those up.
static void Attention(const AttentionArgs& args, int64_t begin, int64_t end, Stream stream) {
  constexpr int32_t kNever = 0x7fffffff;
  constexpr int64_t kFewTasks = 256;
  const KvShape& shape = args.kv.shape;
  const int32_t sharing = args.num_heads / shape.num_heads;
  int32_t tile_rows = static_cast<int32_t>(BlocksOf(kTileQueries / 2, sharing));
  const int64_t groups = args.num_heads / args.heads_per_task;
  const int64_t rows = BlocksOf(end, groups) - begin / groups;
  // Of one sequence, at most, if these are all rows of the step.
  const int64_t most = rows < args.num_sequences ? 1 : rows - args.num_sequences + 1;
  if (shape.key_dim % 4 != 0 || shape.value_dim % 4 != 0 || most < tile_rows) tile_rows = kNever;
  if (most == 1 && end - begin <= kFewTasks && RowsInVectors(args)) tile_rows = kNever;
  if (tile_rows != kNever) AttentionTiles(args, begin, end, tile_rows, stream);
  if (tile_rows == 1 || (tile_rows != kNever && args.num_sequences == 1)) return;
  if (RowsInVectors(args)) return AttentionRows(args, begin, end, 0, 0, tile_rows, stream);
  DT_LAUNCH(AttentionKernel, RowGrid(end - begin), kAttentionThreads, stream, args, begin,
            tile_rows);
}

static void AttentionParts(const AttentionArgs& args, int64_t first, int64_t past, int64_t begin,
                           int64_t end, Stream stream) {
  constexpr int32_t kNever = 0x7fffffff;
  if (begin >= end) return;
  if (RowsInVectors(args)) return AttentionRows(args, first, past, begin, end, kNever, stream);
  const Grid grid = {static_cast<uint32_t>(end - begin), static_cast<uint32_t>(past - first)};
  DT_LAUNCH(AttentionPartsKernel, grid, kAttentionThreads, stream, args, first, begin);
}

static void AttentionMerge(const AttentionArgs& args, int64_t begin, int64_t end, Stream stream) {
  const int64_t chunks = BlocksOf(args.kv.shape.value_dim, kAttentionThreads);
  const Grid grid = {static_cast<uint32_t>(end - begin),
                     static_cast<uint32_t>(args.heads_per_task * chunks)};
  DT_LAUNCH(AttentionMergeKernel, grid, kAttentionThreads, stream, args,
            static_cast<int32_t>(begin), DivisorOf(args.num_heads / args.heads_per_task),
            DivisorOf(chunks));
}

// Panels [begin, end) in blocks of `block_rows` weight rows and `block_tokens` rows of activations.
struct FloatLaunch {
  int64_t first, past;
  Grid grid;
};
static FloatLaunch LaunchOf(DeviceMatmulArgs* args, int64_t begin, int64_t end, int block_rows,
                            int block_tokens) {
  const int64_t first = begin * kPanelRows;
  const int64_t past = end * kPanelRows < args->n ? end * kPanelRows : args->n;
  const int64_t rows = args->groups != nullptr ? args->max_group_rows : args->rows;
  const int64_t sets = args->groups != nullptr ? args->max_groups : args->heads;
  args->tiles = static_cast<int32_t>(BlocksOf(rows, block_tokens));
  return {first,
          past,
          {static_cast<uint32_t>(BlocksOf(past - first, block_rows)),
           static_cast<uint32_t>(sets * args->tiles)}};
}

template <WeightType kType, int kTokens>
static void FloatFew(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  constexpr int kThreads = kFloatWarps * kWarp;
  constexpr int64_t kMany = 4096;  // weight rows: warps with two of them are still enough
  const int64_t sets = args.groups != nullptr ? args.max_groups : args.heads;
  if (args.n * sets < kMany) {
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
  const int64_t rows = args.groups != nullptr ? args.max_group_rows : args.rows;
  if (rows == 1) return FloatFew<kType, 1>(args, begin, end, stream);
  if (rows == 2) return FloatFew<kType, 2>(args, begin, end, stream);
  if (rows > 16 && FloatTile<kType, 4>(args, begin, end, stream)) return;
  if (rows > 8 && FloatTile<kType, 2>(args, begin, end, stream)) return;
  if (rows > 4 && FloatTile<kType, 1>(args, begin, end, stream)) return;
  FloatFew<kType, 4>(args, begin, end, stream);
}

static void Matmul(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  switch (args.type) {
    case WeightType::kF32:
      return FloatProduct<WeightType::kF32>(args, begin, end, stream);
    case WeightType::kF16:
      return FloatProduct<WeightType::kF16>(args, begin, end, stream);
    case WeightType::kBF16:
      return FloatProduct<WeightType::kBF16>(args, begin, end, stream);
    default:
      break;
  }
  const bool known = MatmulSmallBlocks(args, begin, end, stream) ||
                     MatmulKTypes(args, begin, end, stream) ||
                     MatmulCodebooks(args, begin, end, stream);
  if (!known) __builtin_trap();  // plans are bound against SupportedWeightTypes
}

static void Embed(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream) {
  if (args.type == WeightType::kF32 || args.type == WeightType::kF16 ||
      args.type == WeightType::kBF16) {
    const Grid grid = ColumnGrid(end - begin, args.cols, 1);
    DT_LAUNCH(FloatEmbeddingKernel, grid, kRowThreads, stream, args, begin);
    return;
  }
  const bool known = EmbedSmallBlocks(args, begin, end, stream) ||
                     EmbedKTypes(args, begin, end, stream) ||
                     EmbedCodebooks(args, begin, end, stream);
  if (!known) __builtin_trap();
}

template <typename Block>
static void PackBlocks(const PackShape& shape, Stream stream) {
  const Grid grid = RowGrid(BlocksOf(shape.args.n, kPanelRows) * shape.blocks);
  DT_LAUNCH(PackKernel<Block>, grid, kRowThreads, stream, shape);
}

static void Pack(const PackArgs& args, Stream stream) {
  const PackRule* const rule = FindPackRule(args.type);
  if (rule == nullptr) __builtin_trap();
  const WeightTypeInfo& info = InfoOf(args.type);
  const PackShape shape = {args, *rule, static_cast<int32_t>(info.block_bytes),
                           static_cast<int32_t>(args.k / info.block_elements), PartsOf(*rule)};
  switch (args.type) {
    case WeightType::kNVFP4:
      return PackBlocks<BlockNVFP4>(shape, stream);
    case WeightType::kQ2_K:
      return PackBlocks<BlockQ2_K>(shape, stream);
    case WeightType::kQ3_K:
      return PackBlocks<BlockQ3_K>(shape, stream);
    case WeightType::kQ4_K:
      return PackBlocks<BlockQ4_K>(shape, stream);
    case WeightType::kQ5_K:
      return PackBlocks<BlockQ5_K>(shape, stream);
    case WeightType::kQ6_K:
      return PackBlocks<BlockQ6_K>(shape, stream);
    case WeightType::kIQ4_XS:
      return PackBlocks<BlockIQ4_XS>(shape, stream);
    case WeightType::kTQ1_0:
      return PackBlocks<BlockTQ1_0>(shape, stream);
    case WeightType::kTQ2_0:
      return PackBlocks<BlockTQ2_0>(shape, stream);
    case WeightType::kIQ2_XXS:
      return PackBlocks<BlockIQ2_XXS>(shape, stream);
    case WeightType::kIQ2_XS:
      return PackBlocks<BlockIQ2_XS>(shape, stream);
    case WeightType::kIQ3_XXS:
      return PackBlocks<BlockIQ3_XXS>(shape, stream);
    case WeightType::kIQ1_S:
      return PackBlocks<BlockIQ1_S>(shape, stream);
    case WeightType::kIQ1_M:
      return PackBlocks<BlockIQ1_M>(shape, stream);
    default:
      return PackBlocks<StoredBlock>(shape, stream);
  }
}

static void ArgMax(const float* x, int64_t stride, int64_t rows, int64_t cols, int32_t* best,
                   Stream stream) {
  WithWidth(cols % 4 == 0 && RowsLieOn(16, x, stride), [&]<int kWidth>() {
    DT_LAUNCH(ArgMaxKernel<kWidth>, RowGrid(rows), kArgMaxThreads, stream, x, stride, cols, best);
  });
}

// `kLaunch` with a stream that is untyped, as tables have it.
template <auto kLaunch, typename... Args>
static void Untyped(Args... args, void* stream) {
  kLaunch(args..., static_cast<Stream>(stream));
}
template <auto kLaunch, typename Args>
static void Slice(const Args& args, int64_t begin, int64_t end, void* stream) {
  kLaunch(args, begin, end, static_cast<Stream>(stream));
}

template <auto kLaunch, typename Args>
static void SliceAndForm(const Args& args, const Activations& form, int64_t begin, int64_t end,
                         void* stream) {
  kLaunch(args, form, begin, end, static_cast<Stream>(stream));
}

static DeviceTable MakeDeviceTable(const char* name) {
  return {
      .name = name,
      .rms_norm = Slice<RmsNorm, RmsNormArgs>,
      .rms_norm_quantize = SliceAndForm<RmsNormQuantize, RmsNormArgs>,
      .quantize = Slice<Quantize, QuantizeArgs>,
      .matmul = Slice<Matmul, DeviceMatmulArgs>,
      .silu_mul = Slice<Gated<SiluMul>, GatedArgs>,
      .gelu_mul = Slice<Gated<GeluMul>, GatedArgs>,
      .swiglu_oai = Slice<Gated<SwigluOai>, GatedArgs>,
      .silu_mul_quantize = SliceAndForm<GatedQuantize<SiluMul>, GatedArgs>,
      .gelu_mul_quantize = SliceAndForm<GatedQuantize<GeluMul>, GatedArgs>,
      .swiglu_oai_quantize = SliceAndForm<GatedQuantize<SwigluOai>, GatedArgs>,
      .sigmoid = Untyped<Sigmoid, const float*, float*, int64_t>,
      .combine = Slice<Combine, CombineArgs>,
      .rope = Slice<Rope, RopeArgs>,
      .rope_append = Untyped<RopeAppend, const RopeArgs&, const RopeArgs&, const KvAppendArgs&,
                             int64_t, int64_t, int32_t*>,
      .kv_append = Untyped<KvAppend, const KvAppendArgs&, int64_t, int64_t, int32_t*>,
      .attention = Slice<Attention, AttentionArgs>,
      .attention_parts =
          Untyped<AttentionParts, const AttentionArgs&, int64_t, int64_t, int64_t, int64_t>,
      .attention_merge = Slice<AttentionMerge, AttentionArgs>,
      .pack = Untyped<Pack, const PackArgs&>,
      .embedding = Slice<Embed, EmbeddingArgs>,
      .argmax = Untyped<ArgMax, const float*, int64_t, int64_t, int64_t, int32_t*>,
      .router = Slice<Router, RouterArgs>,
      .sort_pairs = Untyped<SortPairs, const SortPairsArgs&>,
      .gather_rows = Slice<GatherRows, GatherRowsArgs>,
      .copy_rows = Slice<CopyRows, CopyRowsArgs>,
      .copy_pieces = Untyped<RunCopyPieces, const CopyPieces&, const DoneSignal&>,
      .check_finite = Untyped<CheckFinite, const float*, int64_t, int64_t, int64_t, int32_t*>,
  };
}
