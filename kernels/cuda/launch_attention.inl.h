// How attention is started: which kernel a row gets, and what a block of it has. On the host, after
// launch_rows.inl.h.

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
