// WeightType: the tensor types of GGUF files, with their ids, block sizes and names.
//
// The table lists every id that ggml has given out (ggml.h, enum ggml_type), so that a file with a
// type that we cannot compute with is refused by its name and not by a number. Thread-safe:
// constants.
#ifndef DOVETAIL_BASE_WEIGHT_TYPE_H_
#define DOVETAIL_BASE_WEIGHT_TYPE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dovetail {

enum class WeightType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
  kNVFP4 = 40,
  kQ1_0 = 41,
  kQ2_0 = 42,
};

struct WeightTypeInfo {
  WeightType type;
  absl::string_view name;  // as llama.cpp prints it: "Q4_K"
  int block_elements;      // a row's length is a multiple of it
  int block_bytes;         // bytes of one block
};

// The entry of `id`, or nullptr for an id that ggml never gave out or has withdrawn.
const WeightTypeInfo* FindWeightType(uint32_t id);

// The entry of a known type.
const WeightTypeInfo& InfoOf(WeightType type);

// "Q4_K" for known ids; "removed type 4 (Q4_2)", "ik_llama.cpp type IQ4_K (139)", "unknown type
// 77".
std::string DescribeWeightType(uint32_t id);

// Bytes of `elements` elements (a multiple of the block) as GGUF stores them.
int64_t StoredBytes(WeightType type, int64_t elements);

// The types that a model may have today, in ascending id.
absl::Span<const WeightType> SupportedWeightTypes();
bool IsSupported(WeightType type);

// True for f32, f16 and bf16, whose products are f32 sums (docs/numerics.md); the others are
// products of small integers with int8 activations.
bool IsFloat(WeightType type);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_WEIGHT_TYPE_H_
