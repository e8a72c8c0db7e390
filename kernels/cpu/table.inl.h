// The table of this instruction set. Included last, inside its namespace.

static void Matmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case WeightType::kF32:
      return FloatMatmul<LoadF32Weights>(args, begin, end);
    case WeightType::kF16:
      return FloatMatmul<LoadF16Weights>(args, begin, end);
    case WeightType::kBF16:
      return FloatMatmul<LoadBf16Weights>(args, begin, end);
    case WeightType::kQ4_0:
      return AnyMatmul<FormatQ4_0>(args, begin, end);
    case WeightType::kQ4_1:
      return AnyMatmul<FormatQ4_1>(args, begin, end);
    case WeightType::kQ5_0:
      return AnyMatmul<FormatQ5_0>(args, begin, end);
    case WeightType::kQ5_1:
      return AnyMatmul<FormatQ5_1>(args, begin, end);
    case WeightType::kQ8_0:
      return AnyMatmul<FormatQ8_0>(args, begin, end);
    case WeightType::kIQ4_NL:
      return AnyMatmul<FormatIQ4_NL>(args, begin, end);
    case WeightType::kMXFP4:
      return AnyMatmul<FormatMXFP4>(args, begin, end);
    case WeightType::kNVFP4:
      return AnyMatmul<FormatNVFP4>(args, begin, end);
    case WeightType::kQ2_K:
      return AnyMatmul<FormatQ2_K>(args, begin, end);
    case WeightType::kQ3_K:
      return AnyMatmul<FormatQ3_K>(args, begin, end);
    case WeightType::kQ4_K:
      return AnyMatmul<FormatQ4_K>(args, begin, end);
    case WeightType::kQ5_K:
      return AnyMatmul<FormatQ5_K>(args, begin, end);
    case WeightType::kQ6_K:
      return AnyMatmul<FormatQ6_K>(args, begin, end);
    case WeightType::kIQ4_XS:
      return AnyMatmul<FormatIQ4_XS>(args, begin, end);
    case WeightType::kTQ1_0:
    case WeightType::kTQ2_0:
      return AnyMatmul<FormatTQ>(args, begin, end);
    case WeightType::kIQ1_S:
      return AnyMatmul<FormatIQ1_S>(args, begin, end);
    case WeightType::kIQ1_M:
      return AnyMatmul<FormatIQ1_M>(args, begin, end);
    case WeightType::kIQ2_XXS:
      return AnyMatmul<FormatIQ2_XXS>(args, begin, end);
    case WeightType::kIQ2_XS:
      return AnyMatmul<FormatIQ2_XS>(args, begin, end);
    case WeightType::kIQ2_S:
      return AnyMatmul<FormatIQ2_S>(args, begin, end);
    case WeightType::kIQ3_XXS:
      return AnyMatmul<FormatIQ3_XXS>(args, begin, end);
    case WeightType::kIQ3_S:
      return AnyMatmul<FormatIQ3_S>(args, begin, end);
    default:
      __builtin_trap();  // callers bind plans against ActivationBlock and SupportedWeightTypes
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
    .softmax = Softmax,
    .argmax = ArgMax,
    .all_finite = AllFinite,
    .read_stream = ReadStream,
};
