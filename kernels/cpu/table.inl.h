// The table of this instruction set. Included last, inside its namespace.

static void Matmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case WeightType::kF32:
      return FloatMatmul<LoadF32Weights>(args, begin, end);
    case WeightType::kF16:
      return FloatMatmul<LoadF16Weights>(args, begin, end);
    case WeightType::kBF16:
      return FloatMatmul<LoadBf16Weights>(args, begin, end);
    default:
      WithFormat(args.type, [&]<typename Format>() { AnyMatmul<Format>(args, begin, end); });
  }
}

static constinit const KernelTable kTable = {
    .name = DOVETAIL_ISA_NAME,
    .isa = DOVETAIL_ISA_VALUE,
    .layout = PackedLayout::kP16,
    .pack = PackP16,
    .rms_norm = RmsNorm,
    .quantize = Quantize,
    .matmul = Matmul,
    .silu_mul = SiluMul,
    .gelu_mul = GeluMul,
    .swiglu_oai = SwigluOai,
    .sigmoid = Sigmoid,
    .combine = Combine,
    .rope = Rope,
    .kv_append = KvAppend,
    .attention = Attention,
    .attention_parts = AttentionParts,
    .attention_merge = AttentionMerge,
    .embedding = ref::Embedding,
    .packed_embedding = EmbedP16,
    .softmax = Softmax,
    .argmax = ArgMax,
    .all_finite = AllFinite,
    .read_stream = ReadStream,
};
