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

struct QuantFormat {
  WeightType type;
  int32_t block;      // elements of a block, and of the activation block that meets it
  int32_t sub_block;  // elements that share a scale
  bool has_min;
  void (*decode)(const uint8_t* block, CanonicalBlock* out);
};

// nullptr for float types and for types that we do not compute with.
const QuantFormat* FindQuantFormat(WeightType type);

// One row of k elements as f32, for any supported type, float types included: the bits that the
// `gguf` Python package's dequantize gives.
void DequantizeRow(WeightType type, const uint8_t* row, int64_t k, float* y);

// Decoders by family.
void DecodeQ4_0(const uint8_t* block, CanonicalBlock* out);
void DecodeQ4_1(const uint8_t* block, CanonicalBlock* out);
void DecodeQ8_0(const uint8_t* block, CanonicalBlock* out);
void DecodeQ4_K(const uint8_t* block, CanonicalBlock* out);
void DecodeQ6_K(const uint8_t* block, CanonicalBlock* out);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_QUANT_FORMAT_H_
