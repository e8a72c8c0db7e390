#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/packed_layout.h"
#include "kernels/cpu/expand.h"
#include "kernels/cpu/p16.h"
#include "kernels/cpu/pack_rules.h"

namespace dovetail::kernels {
namespace {

using T = WeightType;

// Of types whose fields differ from those of the file; null: they do not.
ExpandFn* ExpandOf(WeightType type) {
  switch (type) {
    case T::kNVFP4:
      return ExpandNVFP4;
    case T::kQ2_K:
      return ExpandQ2_K;
    case T::kQ3_K:
      return ExpandQ3_K;
    case T::kQ4_K:
      return ExpandQ4_K;
    case T::kQ5_K:
      return ExpandQ5_K;
    case T::kQ6_K:
      return ExpandQ6_K;
    case T::kIQ4_XS:
      return ExpandIQ4_XS;
    case T::kTQ1_0:
      return ExpandTQ1_0;
    case T::kTQ2_0:
      return ExpandTQ2_0;
    case T::kIQ2_XXS:
      return ExpandIQ2_XXS;
    case T::kIQ2_XS:
      return ExpandIQ2_XS;
    case T::kIQ3_XXS:
      return ExpandIQ3_XXS;
    case T::kIQ1_S:
      return ExpandIQ1_S;
    case T::kIQ1_M:
      return ExpandIQ1_M;
    default:
      return nullptr;
  }
}

// 16 bytes: units of one lane, or the same unit of several lanes.
template <typename Unit>
struct VectorOf {
  static constexpr int kCount = 16 / sizeof(Unit);
  using Type [[gnu::vector_size(16)]] = Unit;
};

// The first halves of two vectors, unit by unit, and the second halves.
inline void Interleave(VectorOf<uint32_t>::Type* a, VectorOf<uint32_t>::Type* b) {
  const auto low = __builtin_shufflevector(*a, *b, 0, 4, 1, 5);
  *b = __builtin_shufflevector(*a, *b, 2, 6, 3, 7);
  *a = low;
}
inline void Interleave(VectorOf<uint16_t>::Type* a, VectorOf<uint16_t>::Type* b) {
  const auto low = __builtin_shufflevector(*a, *b, 0, 8, 1, 9, 2, 10, 3, 11);
  *b = __builtin_shufflevector(*a, *b, 4, 12, 5, 13, 6, 14, 7, 15);
  *a = low;
}
inline void Interleave(VectorOf<uint8_t>::Type* a, VectorOf<uint8_t>::Type* b) {
  const auto low =
      __builtin_shufflevector(*a, *b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  *b =
      __builtin_shufflevector(*a, *b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  *a = low;
}

// Turns a square of units around: each interleaving of vectors half of it apart moves one bit of
// the number of a unit from its place in a vector to the number of the vector.
template <typename Unit>
[[gnu::always_inline]] inline void Transpose(typename VectorOf<Unit>::Type* v) {
  constexpr int kCount = VectorOf<Unit>::kCount;
  for (int step = 1; step < kCount; step *= 2) {
    typename VectorOf<Unit>::Type next[kCount];
    _Pragma("GCC unroll 8") for (int i = 0; i < kCount / 2; ++i) {
      next[2 * i] = v[i];
      next[2 * i + 1] = v[i + kCount / 2];
      Interleave(&next[2 * i], &next[2 * i + 1]);
    }
    _Pragma("GCC unroll 16") for (int i = 0; i < kCount; ++i) v[i] = next[i];
  }
}

// The lanes' blocks: 16 rows' fields of one canonical block.
using Lanes = const uint8_t* const*;

// Units [first, first + kUnits) of a plane, whose unit `first` is at `source` of each block.
template <typename Unit, int kUnits>
[[gnu::always_inline]] inline void PackUnits(Lanes lanes, int source, uint8_t* dst) {
  constexpr int kCount = VectorOf<Unit>::kCount;
  for (int lane = 0; lane < kPanelRows; lane += kCount) {
    typename VectorOf<Unit>::Type v[kCount] = {};
    _Pragma("GCC unroll 16") for (int i = 0; i < kCount; ++i) {
      std::memcpy(&v[i], lanes[lane + i] + source, kUnits * sizeof(Unit));
    }
    Transpose<Unit>(v);
    _Pragma("GCC unroll 16") for (int i = 0; i < kUnits; ++i) {
      std::memcpy(dst + (i * kPanelRows + lane) * sizeof(Unit), &v[i], sizeof(v[i]));
    }
  }
}

template <typename Unit>
void PackPlane(Lanes lanes, const Plane& plane, uint8_t* dst) {
  constexpr int kCount = VectorOf<Unit>::kCount;
  if (plane.count == 1) {
    for (int lane = 0; lane < kPanelRows; ++lane) {
      std::memcpy(dst + lane * sizeof(Unit), lanes[lane] + plane.source, sizeof(Unit));
    }
    return;
  }
  for (int i = 0; i < plane.count;) {
    const int source = plane.source + i * static_cast<int>(sizeof(Unit));
    uint8_t* to = dst + i * kPanelRows * sizeof(Unit);
    const int left = plane.count - i;
    if (left >= kCount) {
      PackUnits<Unit, kCount>(lanes, source, to);
      i += kCount;
    } else if (left >= 8) {
      PackUnits<Unit, std::min(8, kCount)>(lanes, source, to);
      i += 8;
    } else if (left >= 4) {
      PackUnits<Unit, std::min(4, kCount)>(lanes, source, to);
      i += 4;
    } else if (left == 3) {
      PackUnits<Unit, 3>(lanes, source, to);
      i += 3;
    } else {
      PackUnits<Unit, 2>(lanes, source, to);
      i += 2;
    }
  }
}

void PackBlock(const PackRule& rule, Lanes lanes, uint8_t* dst) {
  for (int p = 0; p < rule.num_planes; ++p) {
    const Plane& plane = rule.planes[p];
    if (plane.unit == 4) {
      PackPlane<uint32_t>(lanes, plane, dst);
    } else if (plane.unit == 2) {
      PackPlane<uint16_t>(lanes, plane, dst);
    } else {
      PackPlane<uint8_t>(lanes, plane, dst);
    }
    dst += kPanelRows * plane.unit * plane.count;
  }
}

// What lanes without a row have.
constexpr uint8_t kNoRow[kMaxRowBytes] = {};

// The 16 rows from `src` on, of which `rows` are there.
void PackPanel(const PackRule& rule, const WeightTypeInfo& info, const uint8_t* src, int rows,
               int64_t row_bytes, uint8_t* panel) {
  const int parts = PartsOf(rule);
  ExpandFn* const expand = ExpandOf(rule.type);
  for (int64_t at = 0; at < row_bytes; at += info.block_bytes) {
    const uint8_t* lanes[kPanelRows];
    uint8_t expanded[kPanelRows][kMaxRowBytes];
    for (int lane = 0; lane < kPanelRows; ++lane) {
      lanes[lane] = lane < rows ? src + lane * row_bytes + at : kNoRow;
      if (expand == nullptr || lane >= rows) continue;
      expand(lanes[lane], expanded[lane]);
      lanes[lane] = expanded[lane];
    }
    for (int p = 0; p < parts; ++p, panel += rule.panel_bytes) {
      PackBlock(rule, lanes, panel);
      for (int lane = 0; lane < rows; ++lane) lanes[lane] += rule.row_bytes;
    }
  }
}

}  // namespace

int64_t P16PanelBytes(WeightType type, int64_t k) {
  return kPanelRows * (k / InfoOf(type).block_elements) *
         PackedBlockBytes(PackedLayout::kP16, type);
}

void PackP16(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
             int64_t row_end, uint8_t* dst) {
  const int64_t row_bytes = StoredBytes(type, k);
  if (IsFloat(type)) {
    std::memcpy(dst + row_begin * row_bytes, src + row_begin * row_bytes,
                static_cast<size_t>((row_end - row_begin) * row_bytes));
    return;
  }
  DT_CHECK(FindPackRule(type) != nullptr);
  const PackRule& rule = *FindPackRule(type);
  const WeightTypeInfo& info = InfoOf(type);
  const int64_t panel_bytes = P16PanelBytes(type, k);
  for (int64_t first = row_begin; first < row_end; first += kPanelRows) {
    PackPanel(rule, info, src + first * row_bytes,
              static_cast<int>(std::min<int64_t>(n - first, kPanelRows)), row_bytes,
              dst + first / kPanelRows * panel_bytes);
  }
}

}  // namespace dovetail::kernels
