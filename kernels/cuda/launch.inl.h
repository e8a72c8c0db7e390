// How each op is started, and the table of all of them: the shapes of grids and the choice among
// variants, on the host.

// Blocks of kRowThreads with a thread, or a warp, for each unit.
static Grid ThreadGrid(int64_t threads) { return RowGrid(BlocksOf(threads, kRowThreads)); }
static Grid WarpGrid(int64_t warps) { return RowGrid(BlocksOf(warps, kRowThreads / kWarp)); }

static void RmsNorm(const RmsNormArgs& args, int64_t begin, int64_t end, Stream stream) {
  DT_LAUNCH(RmsNormKernel, WarpGrid(end - begin), kRowThreads, stream, args, begin, end);
}

template <int kBlock>
static void QuantizeBlocks(const Activations& x, int64_t begin, int64_t end, Stream stream) {
  const int64_t blocks = (end - begin) * (x.cols / kBlock);
  const Grid grid = WarpGrid(BlocksOf(blocks, QuantizeShape<kBlock>::kBlocksPerWarp));
  DT_LAUNCH(QuantizeKernel<kBlock>, grid, kRowThreads, stream, x, begin, end);
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

template <typename Op>
static void Gated(const GatedArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = ThreadGrid((end - begin) * args.cols);
  DT_LAUNCH(GatedKernel<Op>, grid, kRowThreads, stream, args, begin, end);
}

static void Sigmoid(const float* x, float* y, int64_t n, Stream stream) {
  DT_LAUNCH(SigmoidKernel, ThreadGrid(n), kRowThreads, stream, x, y, n);
}

static void Combine(const CombineArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = ThreadGrid((end - begin) * args.cols);
  DT_LAUNCH(CombineKernel, grid, kRowThreads, stream, args, begin, end);
}

static void Rope(const RopeArgs& args, int64_t begin, int64_t end, Stream stream) {
  const int64_t pairs = (end - begin) * args.num_heads * (args.rope_dim / 2);
  DT_LAUNCH(RopeKernel, ThreadGrid(pairs), kRowThreads, stream, args, begin, end);
}

static void CheckFinite(const float* x, int64_t stride, int64_t rows, int64_t cols, int32_t* flag,
                        Stream stream) {
  DT_LAUNCH(FiniteKernel, ThreadGrid(rows * cols), kRowThreads, stream, x, stride, rows, cols,
            flag);
}

static void CopyRows(const CopyRowsArgs& args, int64_t begin, int64_t end, Stream stream) {
  const Grid grid = ThreadGrid((end - begin) * args.cols);
  DT_LAUNCH(CopyRowsKernel, grid, kRowThreads, stream, args, begin, end);
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
  DT_LAUNCH(RouterKernel, WarpGrid(end - begin), kRowThreads, stream, args, begin, end);
}

static void SortPairs(const SortPairsArgs& args, Stream stream) {
  DT_LAUNCH(SortPairsKernel, RowGrid(1), kSortThreads, stream, args);
}

static void GatherRows(const GatherRowsArgs& args, int64_t begin, int64_t end, Stream stream) {
  DT_LAUNCH(GatherRowsKernel, RowGrid(end - begin), kRowThreads, stream, args, begin);
}

static void KvAppend(const KvAppendArgs& args, int64_t begin, int64_t end, int32_t* flag,
                     Stream stream) {
  const Grid grid = WarpGrid((end - begin) * args.kv.shape.num_heads);
  DT_LAUNCH(KvAppendKernel, grid, kRowThreads, stream, args, begin, end, flag);
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

static void FloatProduct(DeviceMatmulArgs args, int64_t begin, int64_t end, Stream stream) {
  const int64_t first = begin * kPanelRows;
  const int64_t past = end * kPanelRows < args.n ? end * kPanelRows : args.n;
  const int64_t rows = args.groups != nullptr ? args.max_group_rows : args.rows;
  args.tiles = static_cast<int32_t>(BlocksOf(rows, kFloatTokens));
  const int64_t sets = args.groups != nullptr ? args.max_groups : args.heads;
  const Grid grid = {static_cast<uint32_t>(BlocksOf(past - first, kFloatWarps)),
                     static_cast<uint32_t>(sets * args.tiles)};
  DT_LAUNCH(FloatKernel, grid, kFloatWarps * kWarp, stream, args, first, past);
}

static void Matmul(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream) {
  if (args.type == WeightType::kF32 || args.type == WeightType::kF16 ||
      args.type == WeightType::kBF16) {
    return FloatProduct(args, begin, end, stream);
  }
  const bool known = MatmulSmallBlocks(args, begin, end, stream) ||
                     MatmulKTypes(args, begin, end, stream) ||
                     MatmulCodebooks(args, begin, end, stream);
  if (!known) __builtin_trap();  // plans are bound against SupportedWeightTypes
}

static void Embed(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream) {
  if (args.type == WeightType::kF32 || args.type == WeightType::kF16 ||
      args.type == WeightType::kBF16) {
    const Grid grid = ThreadGrid((end - begin) * args.cols);
    DT_LAUNCH(FloatEmbeddingKernel, grid, kRowThreads, stream, args, begin, end);
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
  DT_LAUNCH(ArgMaxKernel, RowGrid(rows), kArgMaxThreads, stream, x, stride, cols, best);
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

static DeviceTable MakeDeviceTable(const char* name) {
  return {
      .name = name,
      .rms_norm = Slice<RmsNorm, RmsNormArgs>,
      .quantize = Slice<Quantize, QuantizeArgs>,
      .matmul = Slice<Matmul, DeviceMatmulArgs>,
      .silu_mul = Slice<Gated<SiluMul>, GatedArgs>,
      .gelu_mul = Slice<Gated<GeluMul>, GatedArgs>,
      .swiglu_oai = Slice<Gated<SwigluOai>, GatedArgs>,
      .sigmoid = Untyped<Sigmoid, const float*, float*, int64_t>,
      .combine = Slice<Combine, CombineArgs>,
      .rope = Slice<Rope, RopeArgs>,
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
