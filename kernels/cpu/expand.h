// A block of a file rewritten as the row fields that P16 cuts into planes (kernels/cpu/p16.h), for
// the types whose fields differ. Pure functions.
#ifndef DOVETAIL_KERNELS_CPU_EXPAND_H_
#define DOVETAIL_KERNELS_CPU_EXPAND_H_

#include <cstdint>

#include "kernels/quant/blocks.h"

namespace dovetail::kernels {

// The largest of them.
inline constexpr int kMaxRowBytes = 256;

// Fields in the order of the planes.
struct RowNVFP4 {  // one of the four parts of a block
  uint8_t qs[8];
  Half d;
};
struct RowQ2_K {
  uint8_t chunks[64];
  uint8_t scales[16];
  Half d;
  Half dmin;
};
struct RowQ3_K {
  uint8_t chunks[96];
  int8_t scales[16];
  Half d;
};
struct RowQ4_K {
  struct {
    uint8_t scales[4];
    uint8_t chunks[64];
  } halves[2];
  uint8_t mins[4];
  Half d;
  Half dmin;
};
struct RowQ5_K {
  struct {
    uint8_t scales[4];
    uint8_t chunks[80];
  } halves[2];
  uint8_t mins[4];
  Half d;
  Half dmin;
};
struct RowQ6_K {
  uint8_t chunks[192];
  int8_t scales[16];
  Half d;
};
struct RowIQ4_XS {
  uint8_t chunks[128];
  int8_t scales[8];
  Half d;
};
struct RowTQ {
  uint8_t chunks[64];
  Half d;
};
struct RowIQ2_XXS {
  uint8_t index[32];
  uint8_t signs[32];
  uint8_t scales[4];
  Half d;
};
struct RowIQ2_XS {
  uint8_t index[32];
  uint8_t signs[32];
  uint8_t high[4];
  uint8_t scales[8];
  Half d;
};
struct RowIQ3_XXS {
  uint8_t index[64];
  uint8_t signs[32];
  uint8_t scales[4];
  Half d;
};
struct RowIQ1_S {
  uint8_t index[32];
  uint8_t high[16];
  uint8_t scales[4];
  Half d;
};
struct RowIQ1_M {
  uint8_t index[32];
  uint8_t high[16];
  uint8_t scales[8];
  Half d;
};

// Writes the row of `block`; NVFP4's writes its four, one after the other.
using ExpandFn = void(const uint8_t* block, uint8_t* row);

ExpandFn ExpandNVFP4, ExpandQ2_K, ExpandQ3_K, ExpandQ4_K, ExpandQ5_K, ExpandQ6_K, ExpandIQ4_XS,
    ExpandTQ1_0, ExpandTQ2_0, ExpandIQ2_XXS, ExpandIQ2_XS, ExpandIQ3_XXS, ExpandIQ1_S, ExpandIQ1_M;

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_EXPAND_H_
