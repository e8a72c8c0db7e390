// The table of all ops: what is left of how they are started, on the host. After the other
// launch_*.inl.h.

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
