// How one layer's part of the KV cache is stored: the type of its numbers, its shape, and the bytes
// of a block. The planner sizes memory with it and the kernels address it.
//
// A block holds kKvBlockTokens tokens. Plain data and pure functions; instruction-set units include
// this, so inline functions have internal linkage.
#ifndef DOVETAIL_BASE_KV_CACHE_H_
#define DOVETAIL_BASE_KV_CACHE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace dovetail {

inline constexpr int kKvBlockTokens = 32;   // tokens of one KV block
inline constexpr int kKvSplitTokens = 256;  // attention's fixed split, by absolute position

// kQ8_0: int8, with an f16 scale for every kKvScaleElements elements of a token's vector.
enum class KvType : uint32_t { kF32 = 0, kF16 = 1, kBF16 = 2, kQ8_0 = 3 };
inline constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8_0};
inline constexpr int kKvScaleElements = 32;

// "f16", as settings name it.
const char* KvTypeName(KvType type);
// False for a name that is none.
bool FindKvType(absl::string_view name, KvType* type);
// "f32, f16, bf16, q8_0", for messages.
inline constexpr char kKvTypeNames[] = "f32, f16, bf16, q8_0";

// kHeads: a key and a value for each KV head. kLatent: one vector per token, which all heads read
// as their key; its first value_dim elements are their value too (multi-head latent attention).
enum class KvLayout : uint32_t { kHeads = 0, kLatent = 1 };

struct KvShape {
  KvLayout layout = KvLayout::kHeads;
  int32_t num_heads = 0;  // 1 with kLatent
  int32_t key_dim = 0;
  int32_t value_dim = 0;
};

// Bytes of a block's vectors of `dim` elements, one per token: elements, then scales.
static inline constexpr int64_t KvPartBytes(KvType type, int64_t dim) {
  switch (type) {
    case KvType::kF32:
      return kKvBlockTokens * dim * 4;
    case KvType::kF16:
    case KvType::kBF16:
      return kKvBlockTokens * dim * 2;
    case KvType::kQ8_0:
      break;
  }
  return kKvBlockTokens * (dim + 2 * ((dim + kKvScaleElements - 1) / kKvScaleElements));
}

// kHeads: the keys of all heads, then the values of all heads.
static inline constexpr int64_t KvBlockBytes(const KvShape& shape, KvType type) {
  if (shape.layout == KvLayout::kLatent) return KvPartBytes(type, shape.key_dim);
  return shape.num_heads * (KvPartBytes(type, shape.key_dim) + KvPartBytes(type, shape.value_dim));
}

}  // namespace dovetail

#endif  // DOVETAIL_BASE_KV_CACHE_H_
