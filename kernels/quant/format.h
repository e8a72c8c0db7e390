// QuantFormat: what a quantised weight type means. One definition per type, in integers; everything
// else (dequantised rows, products, packed layouts) is derived from it or tested against it.
//
// Thread-safe: constants and pure functions.
#ifndef DOVETAIL_KERNELS_QUANT_FORMAT_H_
#define DOVETAIL_KERNELS_QUANT_FORMAT_H_

#include <cstdint>

#include "base/weight_type.h"

namespace dovetail::kernels {

inline constexpr int kMaxBlock = 256;
inline constexpr int kMaxSubBlocks = 16;
// Canonical blocks in one block of a file: 4 for NVFP4, 1 for the others.
inline constexpr int kMaxParts = 4;

// One block in canonical form: element i of sub-block j = i / sub_block stands for
//   (d * scale[j]) * q[i]                          and, where the format has minimums,
//   (d * scale[j]) * q[i] - dmin * min[j].
// Types without sub-scales have scale 1; an additive m (Q4_1) is dmin = -m, min = 1.
struct CanonicalBlock {
  int8_t q[kMaxBlock];
  int16_t scale[kMaxSubBlocks];
  int16_t min[kMaxSubBlocks];
  float d;
  float dmin;
};

using DecodeFn = void(const uint8_t* block, CanonicalBlock* out);

struct QuantFormat {
  WeightType type;
  int32_t block;      // elements of a block, and of the activation block that meets it
  int32_t sub_block;  // elements that share a scale
  bool has_min;
  // Decodes a block of a file into the parts() canonical blocks that it is.
  DecodeFn* decode;

  int parts() const { return InfoOf(type).block_elements / block; }
};

// nullptr for float types and for types that we do not compute with.
const QuantFormat* FindQuantFormat(WeightType type);

// One row of k elements as f32, for any supported type, float types included: the bits that the
// `gguf` Python package's dequantize gives.
void DequantizeRow(WeightType type, const uint8_t* row, int64_t k, float* y);

// Decoders by family.
DecodeFn DecodeQ4_0, DecodeQ4_1, DecodeQ5_0, DecodeQ5_1, DecodeQ8_0, DecodeIQ4_NL, DecodeMXFP4,
    DecodeNVFP4;
DecodeFn DecodeQ2_K, DecodeQ3_K, DecodeQ4_K, DecodeQ5_K, DecodeQ6_K, DecodeIQ4_XS, DecodeTQ1_0,
    DecodeTQ2_0;
DecodeFn DecodeIQ1_S, DecodeIQ1_M, DecodeIQ2_XXS, DecodeIQ2_XS, DecodeIQ2_S, DecodeIQ3_XXS,
    DecodeIQ3_S;

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_QUANT_FORMAT_H_
