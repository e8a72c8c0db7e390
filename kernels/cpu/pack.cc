#include <cstring>

#include "base/check.h"
#include "base/packed_layout.h"
#include "kernels/cpu/p16.h"
#include "kernels/quant/blocks.h"

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
  int panel_bytes;
  int num_planes;
  Plane planes[5];  // in the order of the packed block
};

// Q4_K's block with its scales and minimums as bytes, which is what gets cut into planes.
struct ExpandedQ4_K {
  Half d;
  Half dmin;
  uint8_t scales[8];
  uint8_t mins[8];
  uint8_t qs[128];
};

constexpr PackRule kRules[] = {
    {WeightType::kQ4_0, P16Q4_0::kBytes, 2, {{2, 4, 4}, {0, 2, 1}}},
    {WeightType::kQ4_1, P16Q4_1::kBytes, 3, {{4, 4, 4}, {0, 2, 1}, {2, 2, 1}}},
    {WeightType::kQ8_0, P16Q8_0::kBytes, 2, {{2, 4, 8}, {0, 2, 1}}},
    {WeightType::kQ4_K,
     P16Q4_K::kBytes,
     5,
     {{20, 4, 32}, {4, 1, 8}, {12, 1, 8}, {0, 2, 1}, {2, 2, 1}}},
    {WeightType::kQ6_K, P16Q6_K::kBytes, 4, {{0, 4, 32}, {128, 4, 16}, {192, 1, 16}, {208, 2, 1}}},
};

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

// Puts one row's block into lane `lane` of the panel block at dst.
void PackBlock(const PackRule& rule, const uint8_t* block, int lane, uint8_t* dst) {
  ExpandedQ4_K expanded;
  if (rule.type == WeightType::kQ4_K) {
    const auto& b = *reinterpret_cast<const BlockQ4_K*>(block);
    expanded.d = b.d;
    expanded.dmin = b.dmin;
    for (int j = 0; j < 8; ++j) {
      UnpackScaleMin(b.scales, j, &expanded.scales[j], &expanded.mins[j]);
    }
    std::memcpy(expanded.qs, b.qs, sizeof(b.qs));
    block = reinterpret_cast<const uint8_t*>(&expanded);
  }
  for (int p = 0; p < rule.num_planes; ++p) {
    const Plane& plane = rule.planes[p];
    const uint8_t* from = block + plane.source;
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
  for (int64_t first = row_begin; first < row_end; first += kPanelRows) {
    uint8_t* panel = dst + first / kPanelRows * num_blocks * rule.panel_bytes;
    const int rows = static_cast<int>(n - first < kPanelRows ? n - first : kPanelRows);
    if (rows < kPanelRows) std::memset(panel, 0, num_blocks * rule.panel_bytes);
    for (int lane = 0; lane < rows; ++lane) {
      const uint8_t* row = src + (first + lane) * row_bytes;
      for (int64_t b = 0; b < num_blocks; ++b) {
        PackBlock(rule, row + b * info.block_bytes, lane, panel + b * rule.panel_bytes);
      }
    }
  }
}

}  // namespace dovetail::kernels
