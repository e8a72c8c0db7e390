// Which bytes of a row's block go to which plane of a panel block (kernels/cpu/p16.h), for all
// quantised types: what processors and GPUs pack by. Plain data.
//
// Offsets are those of the block in the file, or, where its fields differ, of what it is rewritten
// as (kernels/cpu/expand.h).
#ifndef DOVETAIL_KERNELS_CPU_PACK_RULES_H_
#define DOVETAIL_KERNELS_CPU_PACK_RULES_H_

#include "base/packed_layout.h"
#include "base/weight_type.h"
#include "kernels/cpu/expand.h"
#include "kernels/cpu/p16.h"

namespace dovetail::kernels {

// One plane of a panel block: `count` units of `unit` bytes, taken from offset `source` of the
// row's block.
struct Plane {
  int source;
  int unit;
  int count;
};

// How blocks of a type become panel blocks. A block of the file has PartsOf(rule) canonical blocks
// of `row_bytes` each, one after the other.
struct PackRule {
  WeightType type;
  int panel_bytes;  // of one canonical block
  int row_bytes;    // of one canonical block as the planes see it
  int num_planes;
  Plane planes[6];  // in the order of the packed block
};

inline constexpr PackRule kPackRules[] = {
    {WeightType::kQ4_0, P16Q4_0::kBytes, 18, 2, {{2, 4, 4}, {0, 2, 1}}},
    {WeightType::kQ4_1, P16Q4_1::kBytes, 20, 3, {{4, 4, 4}, {0, 2, 1}, {2, 2, 1}}},
    {WeightType::kQ5_0, P16Q5_0::kBytes, 22, 3, {{6, 4, 4}, {2, 4, 1}, {0, 2, 1}}},
    {WeightType::kQ5_1, P16Q5_1::kBytes, 24, 4, {{8, 4, 4}, {4, 4, 1}, {0, 2, 1}, {2, 2, 1}}},
    {WeightType::kQ8_0, P16Q8_0::kBytes, 34, 2, {{2, 4, 8}, {0, 2, 1}}},
    {WeightType::kIQ4_NL, P16Q4_0::kBytes, 18, 2, {{2, 4, 4}, {0, 2, 1}}},
    {WeightType::kMXFP4, P16MXFP4::kBytes, 17, 2, {{1, 4, 4}, {0, 1, 1}}},
    {WeightType::kNVFP4, P16NVFP4::kBytes, 10, 2, {{0, 4, 2}, {8, 2, 1}}},
    {WeightType::kQ2_K,
     P16Q2_K::kBytes,
     sizeof(RowQ2_K),
     4,
     {{0, 4, 16}, {64, 1, 16}, {80, 2, 1}, {82, 2, 1}}},
    {WeightType::kQ3_K,
     P16Q3_K::kBytes,
     sizeof(RowQ3_K),
     3,
     {{0, 4, 24}, {96, 1, 16}, {112, 2, 1}}},
    {WeightType::kQ4_K,
     P16Q4_K::kBytes,
     sizeof(RowQ4_K),
     3,
     {{0, 4, 35}, {140, 2, 1}, {142, 2, 1}}},
    {WeightType::kQ5_K,
     P16Q5_K::kBytes,
     sizeof(RowQ5_K),
     3,
     {{0, 4, 43}, {172, 2, 1}, {174, 2, 1}}},
    {WeightType::kQ6_K,
     P16Q6_K::kBytes,
     sizeof(RowQ6_K),
     3,
     {{0, 4, 48}, {192, 1, 16}, {208, 2, 1}}},
    {WeightType::kIQ4_XS,
     P16IQ4_XS::kBytes,
     sizeof(RowIQ4_XS),
     3,
     {{0, 4, 32}, {128, 1, 8}, {136, 2, 1}}},
    {WeightType::kTQ1_0, P16TQ::kBytes, sizeof(RowTQ), 2, {{0, 4, 16}, {64, 2, 1}}},
    {WeightType::kTQ2_0, P16TQ::kBytes, sizeof(RowTQ), 2, {{0, 4, 16}, {64, 2, 1}}},
    {WeightType::kIQ2_XXS,
     P16IQ2_XXS::kBytes,
     sizeof(RowIQ2_XXS),
     4,
     {{0, 1, 32}, {32, 4, 8}, {64, 1, 4}, {68, 2, 1}}},
    {WeightType::kIQ2_XS,
     P16IQ2_XS::kBytes,
     sizeof(RowIQ2_XS),
     5,
     {{0, 1, 32}, {32, 4, 8}, {64, 1, 4}, {68, 1, 8}, {76, 2, 1}}},
    {WeightType::kIQ2_S,
     P16IQ2_S::kBytes,
     82,
     5,
     {{2, 1, 32}, {34, 4, 8}, {66, 1, 8}, {74, 1, 8}, {0, 2, 1}}},
    {WeightType::kIQ3_XXS,
     P16IQ3_XXS::kBytes,
     sizeof(RowIQ3_XXS),
     4,
     {{0, 1, 64}, {64, 4, 8}, {96, 1, 4}, {100, 2, 1}}},
    {WeightType::kIQ3_S,
     P16IQ3_S::kBytes,
     110,
     5,
     {{2, 1, 64}, {74, 4, 8}, {66, 1, 8}, {106, 1, 4}, {0, 2, 1}}},
    {WeightType::kIQ1_S,
     P16IQ1_S::kBytes,
     sizeof(RowIQ1_S),
     4,
     {{0, 1, 32}, {32, 1, 16}, {48, 1, 4}, {52, 2, 1}}},
    {WeightType::kIQ1_M,
     P16IQ1_M::kBytes,
     sizeof(RowIQ1_M),
     4,
     {{0, 1, 32}, {32, 1, 16}, {48, 1, 8}, {56, 2, 1}}},
};

// Every byte of a row's block is in one plane, and the planes fill the panel block; a block of any
// type has room where expanded ones have.
constexpr bool PackPackRulesAddUp() {
  for (const PackRule& rule : kPackRules) {
    int bytes = 0;
    for (const Plane& plane : rule.planes) {
      bytes += plane.unit * plane.count;
      if (plane.count > 1 && plane.count % 4 == 1) return false;  // pack.cc
    }
    if (bytes > kMaxRowBytes) return false;
    if (bytes != rule.row_bytes || bytes * kPanelRows != rule.panel_bytes) return false;
  }
  return true;
}
static_assert(PackPackRulesAddUp());

// nullptr: a type that is not packed.
constexpr const PackRule* FindPackRule(WeightType type) {
  for (const PackRule& rule : kPackRules) {
    if (rule.type == type) return &rule;
  }
  return nullptr;
}

// 4 for NVFP4, else 1.
inline int PartsOf(const PackRule& rule) {
  return static_cast<int>(PackedBlockBytes(PackedLayout::kP16, rule.type) / rule.row_bytes);
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_PACK_RULES_H_
