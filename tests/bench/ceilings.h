// What one thread of this machine can do at most: each measured once in a run, when first asked
// for.
//
// The shares that benchmarks of kernels print are of these. Not thread-safe: benchmarks run one
// after another.
#ifndef DOVETAIL_TESTS_BENCH_CEILINGS_H_
#define DOVETAIL_TESTS_BENCH_CEILINGS_H_

#include "kernels/table.h"

namespace dovetail::kernels {

double ReadBandwidth();         // bytes a second, from memory
double Int8Products(Isa isa);   // multiplications of 8-bit numbers a second; 0: not known
double FloatProducts(Isa isa);  // fused multiply-adds of floats a second; 0: not known

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_BENCH_CEILINGS_H_
