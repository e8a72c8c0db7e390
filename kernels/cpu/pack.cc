#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/packed_layout.h"
#include "kernels/cpu/expand.h"
#include "kernels/cpu/p16.h"

namespace dovetail::kernels {
namespace {

// One plane of a panel block: `count` units of `unit` bytes, taken from offset `source` of the
// row's block.
struct Plane {
  int source;
  int unit;
  int count;
};

struct PackRule {
  WeightType type;
  int panel_bytes;   // of one canonical block
  ExpandFn* expand;  // where the fields differ from those of the file
  int row_bytes;     // of one canonical block as the planes see it
  int num_planes;
  Plane planes[6];  // in the order of the packed block
};

using T = WeightType;

constexpr PackRule kRules[] = {
    {T::kQ4_0, P16Q4_0::kBytes, nullptr, 18, 2, {{2, 4, 4}, {0, 2, 1}}},
    {T::kQ4_1, P16Q4_1::kBytes, nullptr, 20, 3, {{4, 4, 4}, {0, 2, 1}, {2, 2, 1}}},
    {T::kQ5_0, P16Q5_0::kBytes, nullptr, 22, 3, {{6, 4, 4}, {2, 4, 1}, {0, 2, 1}}},
    {T::kQ5_1, P16Q5_1::kBytes, nullptr, 24, 4, {{8, 4, 4}, {4, 4, 1}, {0, 2, 1}, {2, 2, 1}}},
    {T::kQ8_0, P16Q8_0::kBytes, nullptr, 34, 2, {{2, 4, 8}, {0, 2, 1}}},
    {T::kIQ4_NL, P16Q4_0::kBytes, nullptr, 18, 2, {{2, 4, 4}, {0, 2, 1}}},
    {T::kMXFP4, P16MXFP4::kBytes, nullptr, 17, 2, {{1, 4, 4}, {0, 1, 1}}},
    {T::kNVFP4, P16NVFP4::kBytes, ExpandNVFP4, 10, 2, {{0, 4, 2}, {8, 2, 1}}},
    {T::kQ2_K, P16Q2_K::kBytes, nullptr, 84, 4, {{16, 4, 16}, {0, 1, 16}, {80, 2, 1}, {82, 2, 1}}},
    {T::kQ3_K,
     P16Q3_K::kBytes,
     ExpandQ3_K,
     sizeof(RowQ3_K),
     4,
     {{0, 4, 16}, {64, 4, 8}, {96, 1, 16}, {112, 2, 1}}},
    {T::kQ4_K,
     P16Q4_K::kBytes,
     ExpandQ4_K,
     sizeof(RowQ4_K),
     5,
     {{0, 4, 32}, {128, 1, 8}, {136, 1, 8}, {144, 2, 1}, {146, 2, 1}}},
    {T::kQ5_K,
     P16Q5_K::kBytes,
     ExpandQ5_K,
     sizeof(RowQ5_K),
     6,
     {{0, 4, 32}, {128, 4, 8}, {160, 1, 8}, {168, 1, 8}, {176, 2, 1}, {178, 2, 1}}},
    {T::kQ6_K,
     P16Q6_K::kBytes,
     nullptr,
     210,
     4,
     {{0, 4, 32}, {128, 4, 16}, {192, 1, 16}, {208, 2, 1}}},
    {T::kIQ4_XS,
     P16IQ4_XS::kBytes,
     ExpandIQ4_XS,
     sizeof(RowIQ4_XS),
     3,
     {{0, 4, 32}, {128, 1, 8}, {136, 2, 1}}},
    {T::kTQ1_0, P16TQ::kBytes, ExpandTQ1_0, sizeof(RowTQ), 2, {{0, 4, 16}, {64, 2, 1}}},
    {T::kTQ2_0, P16TQ::kBytes, nullptr, 66, 2, {{0, 4, 16}, {64, 2, 1}}},
    {T::kIQ2_XXS,
     P16IQ2_XXS::kBytes,
     ExpandIQ2_XXS,
     sizeof(RowIQ2_XXS),
     4,
     {{0, 1, 32}, {32, 4, 8}, {64, 1, 4}, {68, 2, 1}}},
    {T::kIQ2_XS,
     P16IQ2_XS::kBytes,
     ExpandIQ2_XS,
     sizeof(RowIQ2_XS),
     5,
     {{0, 1, 32}, {32, 4, 8}, {64, 1, 4}, {68, 1, 8}, {76, 2, 1}}},
    {T::kIQ2_S,
     P16IQ2_S::kBytes,
     nullptr,
     82,
     5,
     {{2, 1, 32}, {34, 4, 8}, {66, 1, 8}, {74, 1, 8}, {0, 2, 1}}},
    {T::kIQ3_XXS,
     P16IQ3_XXS::kBytes,
     ExpandIQ3_XXS,
     sizeof(RowIQ3_XXS),
     4,
     {{0, 1, 64}, {64, 4, 8}, {96, 1, 4}, {100, 2, 1}}},
    {T::kIQ3_S,
     P16IQ3_S::kBytes,
     nullptr,
     110,
     5,
     {{2, 1, 64}, {74, 4, 8}, {66, 1, 8}, {106, 1, 4}, {0, 2, 1}}},
    {T::kIQ1_S,
     P16IQ1_S::kBytes,
     ExpandIQ1_S,
     sizeof(RowIQ1_S),
     4,
     {{0, 1, 32}, {32, 1, 16}, {48, 1, 4}, {52, 2, 1}}},
    {T::kIQ1_M,
     P16IQ1_M::kBytes,
     ExpandIQ1_M,
     sizeof(RowIQ1_M),
     4,
     {{0, 1, 32}, {32, 1, 16}, {48, 1, 8}, {56, 2, 1}}},
};

// Every byte of a row's block is in one plane, and the planes fill the panel block; a block of any
// type has room where expanded ones have.
constexpr bool RulesAddUp() {
  for (const PackRule& rule : kRules) {
    int bytes = 0;
    for (const Plane& plane : rule.planes) {
      bytes += plane.unit * plane.count;
      if (plane.count > 1 && plane.count % 2 != 0) return false;  // PackPlane
    }
    if (bytes > kMaxRowBytes) return false;
    if (bytes != rule.row_bytes || bytes * kPanelRows != rule.panel_bytes) return false;
  }
  return true;
}
static_assert(RulesAddUp());

const PackRule& RuleOf(WeightType type) {
  for (const PackRule& rule : kRules) {
    if (rule.type == type) return rule;
  }
  DT_CHECK(false && "no P16 rule for this weight type");
  return kRules[0];
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
  // Canonical blocks of one block of the file: 4 for NVFP4.
  const int64_t parts = PackedBlockBytes(PackedLayout::kP16, rule.type) / rule.row_bytes;
  for (int64_t at = 0; at < row_bytes; at += info.block_bytes) {
    const uint8_t* lanes[kPanelRows];
    uint8_t expanded[kPanelRows][kMaxRowBytes];
    for (int lane = 0; lane < kPanelRows; ++lane) {
      lanes[lane] = lane < rows ? src + lane * row_bytes + at : kNoRow;
      if (rule.expand == nullptr || lane >= rows) continue;
      rule.expand(lanes[lane], expanded[lane]);
      lanes[lane] = expanded[lane];
    }
    for (int64_t p = 0; p < parts; ++p, panel += rule.panel_bytes) {
      PackBlock(rule, lanes, panel);
      for (int lane = 0; lane < rows; ++lane) lanes[lane] += rule.row_bytes;
    }
  }
}

}  // namespace

void PackP16(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
             int64_t row_end, uint8_t* dst) {
  const int64_t row_bytes = StoredBytes(type, k);
  if (IsFloat(type)) {
    std::memcpy(dst + row_begin * row_bytes, src + row_begin * row_bytes,
                static_cast<size_t>((row_end - row_begin) * row_bytes));
    return;
  }
  const PackRule& rule = RuleOf(type);
  const WeightTypeInfo& info = InfoOf(type);
  const int64_t panel_bytes =
      kPanelRows * (k / info.block_elements) * PackedBlockBytes(PackedLayout::kP16, type);
  for (int64_t first = row_begin; first < row_end; first += kPanelRows) {
    PackPanel(rule, info, src + first * row_bytes,
              static_cast<int>(std::min<int64_t>(n - first, kPanelRows)), row_bytes,
              dst + first / kPanelRows * panel_bytes);
  }
}

}  // namespace dovetail::kernels
