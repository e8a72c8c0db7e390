// Which format a quantised weight type has. Included once in a unit, after its formats: an
// instruction set's (unpack.inl.h), or those of single rows (embedding.cc).

// Calls run.template operator()<Format>().
template <typename Run>
static inline void WithFormat(WeightType type, const Run& run) {
  switch (type) {
    case WeightType::kQ4_0:
      return run.template operator()<FormatQ4_0>();
    case WeightType::kQ4_1:
      return run.template operator()<FormatQ4_1>();
    case WeightType::kQ5_0:
      return run.template operator()<FormatQ5_0>();
    case WeightType::kQ5_1:
      return run.template operator()<FormatQ5_1>();
    case WeightType::kQ8_0:
      return run.template operator()<FormatQ8_0>();
    case WeightType::kIQ4_NL:
      return run.template operator()<FormatIQ4_NL>();
    case WeightType::kMXFP4:
      return run.template operator()<FormatMXFP4>();
    case WeightType::kNVFP4:
      return run.template operator()<FormatNVFP4>();
    case WeightType::kQ2_K:
      return run.template operator()<FormatQ2_K>();
    case WeightType::kQ3_K:
      return run.template operator()<FormatQ3_K>();
    case WeightType::kQ4_K:
      return run.template operator()<FormatQ4_K>();
    case WeightType::kQ5_K:
      return run.template operator()<FormatQ5_K>();
    case WeightType::kQ6_K:
      return run.template operator()<FormatQ6_K>();
    case WeightType::kIQ4_XS:
      return run.template operator()<FormatIQ4_XS>();
    case WeightType::kTQ1_0:
    case WeightType::kTQ2_0:
      return run.template operator()<FormatTQ>();
    case WeightType::kIQ1_S:
      return run.template operator()<FormatIQ1_S>();
    case WeightType::kIQ1_M:
      return run.template operator()<FormatIQ1_M>();
    case WeightType::kIQ2_XXS:
      return run.template operator()<FormatIQ2_XXS>();
    case WeightType::kIQ2_XS:
      return run.template operator()<FormatIQ2_XS>();
    case WeightType::kIQ2_S:
      return run.template operator()<FormatIQ2_S>();
    case WeightType::kIQ3_XXS:
      return run.template operator()<FormatIQ3_XXS>();
    case WeightType::kIQ3_S:
      return run.template operator()<FormatIQ3_S>();
    default:
      __builtin_trap();  // callers bind plans against ActivationBlock and SupportedWeightTypes
  }
}
