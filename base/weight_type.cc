#include "base/weight_type.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace dovetail {
namespace {

using T = WeightType;

// Sizes: ggml-common.h, block_* structs.
constexpr WeightTypeInfo kTypes[] = {
    {T::kF32, "F32", 1, 4},
    {T::kF16, "F16", 1, 2},
    {T::kQ4_0, "Q4_0", 32, 18},
    {T::kQ4_1, "Q4_1", 32, 20},
    {T::kQ5_0, "Q5_0", 32, 22},
    {T::kQ5_1, "Q5_1", 32, 24},
    {T::kQ8_0, "Q8_0", 32, 34},
    {T::kQ8_1, "Q8_1", 32, 36},
    {T::kQ2_K, "Q2_K", 256, 84},
    {T::kQ3_K, "Q3_K", 256, 110},
    {T::kQ4_K, "Q4_K", 256, 144},
    {T::kQ5_K, "Q5_K", 256, 176},
    {T::kQ6_K, "Q6_K", 256, 210},
    {T::kQ8_K, "Q8_K", 256, 292},
    {T::kIQ2_XXS, "IQ2_XXS", 256, 66},
    {T::kIQ2_XS, "IQ2_XS", 256, 74},
    {T::kIQ3_XXS, "IQ3_XXS", 256, 98},
    {T::kIQ1_S, "IQ1_S", 256, 50},
    {T::kIQ4_NL, "IQ4_NL", 32, 18},
    {T::kIQ3_S, "IQ3_S", 256, 110},
    {T::kIQ2_S, "IQ2_S", 256, 82},
    {T::kIQ4_XS, "IQ4_XS", 256, 136},
    {T::kI8, "I8", 1, 1},
    {T::kI16, "I16", 1, 2},
    {T::kI32, "I32", 1, 4},
    {T::kI64, "I64", 1, 8},
    {T::kF64, "F64", 1, 8},
    {T::kIQ1_M, "IQ1_M", 256, 56},
    {T::kBF16, "BF16", 1, 2},
    {T::kTQ1_0, "TQ1_0", 256, 54},
    {T::kTQ2_0, "TQ2_0", 256, 66},
    {T::kMXFP4, "MXFP4", 32, 17},
    {T::kNVFP4, "NVFP4", 64, 36},
    {T::kQ1_0, "Q1_0", 128, 18},
    {T::kQ2_0, "Q2_0", 64, 18},
};

struct ForeignType {
  uint32_t id;
  absl::string_view name;
};

constexpr ForeignType kRemoved[] = {
    {4, "Q4_2"},      {5, "Q4_3"},        {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},
    {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"},
};

// ik_llama.cpp, ggml.h: types of its own, and rows interleaved at run time (202 to 399).
constexpr ForeignType kIkLlama[] = {
    {97, "Q8_0_X4"}, {98, "Q8_1_X4"},  {99, "Q8_2_X4"}, {133, "Q6_0"},   {137, "IQ2_K"},
    {138, "IQ3_K"},  {139, "IQ4_K"},   {140, "IQ5_K"},  {141, "IQ6_K"},  {144, "IQ4_KS"},
    {145, "IQ2_KS"}, {146, "IQ4_KSS"}, {152, "IQ5_KS"}, {153, "IQ2_KT"}, {154, "IQ3_KT"},
    {155, "IQ4_KT"}, {156, "IQ3_KS"},  {157, "IQ2_KL"}, {158, "IQ1_KT"},
};

constexpr T kSupported[] = {T::kF32,     T::kF16,    T::kQ4_0,    T::kQ4_1,  T::kQ5_0,   T::kQ5_1,
                            T::kQ8_0,    T::kQ2_K,   T::kQ3_K,    T::kQ4_K,  T::kQ5_K,   T::kQ6_K,
                            T::kIQ2_XXS, T::kIQ2_XS, T::kIQ3_XXS, T::kIQ1_S, T::kIQ4_NL, T::kIQ3_S,
                            T::kIQ2_S,   T::kIQ4_XS, T::kIQ1_M,   T::kBF16,  T::kTQ1_0,  T::kTQ2_0,
                            T::kMXFP4,   T::kNVFP4};

}  // namespace

const WeightTypeInfo* FindWeightType(uint32_t id) {
  for (const WeightTypeInfo& info : kTypes) {
    if (static_cast<uint32_t>(info.type) == id) return &info;
  }
  return nullptr;
}

const WeightTypeInfo& InfoOf(WeightType type) {
  const WeightTypeInfo* info = FindWeightType(static_cast<uint32_t>(type));
  DT_CHECK(info != nullptr);
  return *info;
}

std::string DescribeWeightType(uint32_t id) {
  if (const WeightTypeInfo* info = FindWeightType(id)) return std::string(info->name);
  for (const ForeignType& f : kRemoved) {
    if (f.id == id) return absl::StrCat("removed type ", id, " (", f.name, ")");
  }
  for (const ForeignType& f : kIkLlama) {
    if (f.id == id) return absl::StrCat("ik_llama.cpp type ", f.name, " (", id, ")");
  }
  if (id >= 202 && id <= 399) {
    return absl::StrCat("ik_llama.cpp run-time repacked type ", id, " (convert the original file)");
  }
  return absl::StrCat("unknown type ", id);
}

int64_t StoredBytes(WeightType type, int64_t elements) {
  const WeightTypeInfo& info = InfoOf(type);
  return elements / info.block_elements * info.block_bytes;
}

absl::Span<const WeightType> SupportedWeightTypes() { return kSupported; }

bool IsSupported(WeightType type) {
  for (WeightType t : kSupported) {
    if (t == type) return true;
  }
  return false;
}

bool IsFloat(WeightType type) { return type == T::kF32 || type == T::kF16 || type == T::kBF16; }

}  // namespace dovetail
