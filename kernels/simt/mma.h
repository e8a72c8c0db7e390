// A warp's matrix products of signed bytes, from the fragment layout that PTX documents for
// mma.m16n8k16 and mma.m16n8k32 of .s8: lane 4 g + t has, with quads of 4 k,
//   a[2 h + r]  row g + 8 r, quad t + 4 h      (row-major; m16n8k16 has h = 0 only)
//   b[h]        column g, quad t + 4 h
//   c[2 r + i]  row g + 8 r, column 2 t + i
// and for mma.m8n8k16, a: row g, quad t; b: column g, quad t; c[i]: row g, column 2 t + i.
// Integers are exact in any order.
#ifndef DOVETAIL_KERNELS_SIMT_MMA_H_
#define DOVETAIL_KERNELS_SIMT_MMA_H_

#include <cstdint>

#include "kernels/simt/simt.h"

namespace dovetail::simt {

// The products of four signed bytes, summed.
inline int32_t Dot4(int32_t a, int32_t b) {
  int32_t sum = 0;
  for (int i = 0; i < 32; i += 8) sum += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return sum;
}

template <int kQuads>
struct MmaOp {
  struct In {
    int32_t a[kQuads / 2];
    int32_t b[kQuads / 4];
    int32_t c[4];
  };
  struct Out {
    int32_t c[4];
  };

  static Out Of(const In (&lanes)[kWarpLanes], uint32_t mask, int lane) {
    if (mask != 0xffffffff) Fail("Mma: not all lanes take part");
    Out out;
    for (int r = 0; r < 2; ++r) {
      for (int i = 0; i < 2; ++i) {
        int32_t sum = lanes[lane].c[2 * r + i];
        const int row = lane / 4, column = 2 * (lane % 4) + i;
        for (int quad = 0; quad < kQuads; ++quad) {
          const int h = quad / 4, t = quad % 4;
          sum += Dot4(lanes[4 * row + t].a[2 * h + r], lanes[4 * column + t].b[h]);
        }
        out.c[2 * r + i] = sum;
      }
    }
    return out;
  }
};

template <int kQuads>
void Mma(int32_t (&c)[4], const int32_t (&a)[kQuads / 2], const int32_t (&b)[kQuads / 4]) {
  using Op = MmaOp<kQuads>;
  typename Op::In in;
  for (int i = 0; i < kQuads / 2; ++i) in.a[i] = a[i];
  for (int i = 0; i < kQuads / 4; ++i) in.b[i] = b[i];
  for (int i = 0; i < 4; ++i) in.c[i] = c[i];
  const typename Op::Out out = Exchange<Op>("Mma", 0xffffffff, in);
  for (int i = 0; i < 4; ++i) c[i] = out.c[i];
}

struct MmaRows8Op {
  struct In {
    int32_t a, b, c[2];
  };
  struct Out {
    int32_t c[2];
  };

  static Out Of(const In (&lanes)[kWarpLanes], uint32_t mask, int lane) {
    if (mask != 0xffffffff) Fail("MmaRows8: not all lanes take part");
    Out out;
    for (int i = 0; i < 2; ++i) {
      out.c[i] = lanes[lane].c[i];
      for (int t = 0; t < 4; ++t) {
        out.c[i] += Dot4(lanes[lane / 4 * 4 + t].a, lanes[4 * (2 * (lane % 4) + i) + t].b);
      }
    }
    return out;
  }
};

inline void MmaRows8(int32_t& c0, int32_t& c1, int32_t a, int32_t b) {
  const MmaRows8Op::Out out = Exchange<MmaRows8Op>("MmaRows8", 0xffffffff, {a, b, {c0, c1}});
  c0 = out.c[0];
  c1 = out.c[1];
}

}  // namespace dovetail::simt

#endif  // DOVETAIL_KERNELS_SIMT_MMA_H_
