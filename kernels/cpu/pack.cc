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

// Every byte of a row's block is in one plane, and the planes fill the panel block.
constexpr bool RulesAddUp() {
  for (const PackRule& rule : kRules) {
    int bytes = 0;
    for (const Plane& plane : rule.planes) bytes += plane.unit * plane.count;
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

template <int kUnit>
void CopyUnits(const uint8_t* src, int count, uint8_t* dst) {
  for (int i = 0; i < count; ++i) std::memcpy(dst + i * kPanelRows * kUnit, src + i * kUnit, kUnit);
}

// Puts one row's canonical block into lane `lane` of the panel block at dst.
void PackRow(const PackRule& rule, const uint8_t* row, int lane, uint8_t* dst) {
  for (int p = 0; p < rule.num_planes; ++p) {
    const Plane& plane = rule.planes[p];
    const uint8_t* from = row + plane.source;
    uint8_t* to = dst + lane * plane.unit;
    if (plane.unit == 4) {
      CopyUnits<4>(from, plane.count, to);
    } else if (plane.unit == 2) {
      CopyUnits<2>(from, plane.count, to);
    } else {
      CopyUnits<1>(from, plane.count, to);
    }
    dst += kPanelRows * plane.unit * plane.count;
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
  const int64_t num_blocks = k / info.block_elements;
  // Canonical blocks of one block of the file: 4 for NVFP4.
  const int64_t parts = PackedBlockBytes(PackedLayout::kP16, type) / rule.row_bytes;
  const int64_t stored_bytes = parts * rule.panel_bytes;
  for (int64_t first = row_begin; first < row_end; first += kPanelRows) {
    uint8_t* panel = dst + first / kPanelRows * num_blocks * stored_bytes;
    const int rows = static_cast<int>(n - first < kPanelRows ? n - first : kPanelRows);
    if (rows < kPanelRows) std::memset(panel, 0, num_blocks * stored_bytes);
    for (int lane = 0; lane < rows; ++lane) {
      const uint8_t* row = src + (first + lane) * row_bytes;
      for (int64_t b = 0; b < num_blocks; ++b) {
        const uint8_t* fields = row + b * info.block_bytes;
        uint8_t expanded[kMaxRowBytes];
        if (rule.expand != nullptr) {
          rule.expand(fields, expanded);
          fields = expanded;
        }
        for (int64_t p = 0; p < parts; ++p) {
          PackRow(rule, fields + p * rule.row_bytes, lane,
                  panel + (b * parts + p) * rule.panel_bytes);
        }
      }
    }
  }
}

}  // namespace dovetail::kernels
