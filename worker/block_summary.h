// Summaries of a row of numbers by blocks of 64: their sum, their largest. Who looks for the few
// that are large, or for where a running sum passes a number, passes most blocks by.
//
// Pure functions; sums are in double, in an order that the length alone decides.
#ifndef DOVETAIL_WORKER_BLOCK_SUMMARY_H_
#define DOVETAIL_WORKER_BLOCK_SUMMARY_H_

#include <cstdint>

#include "absl/types/span.h"

namespace dovetail::worker {

inline constexpr int32_t kSummaryBlock = 64;

inline constexpr int32_t NumSummaryBlocks(int32_t n) {
  return (n + kSummaryBlock - 1) / kSummaryBlock;
}

// largest[b]: of block b of x [n], which holds no NaN.
void LargestOfBlocks(const float* x, int32_t n, float* largest);

// sums[b]: of block b of x [n], as 8 partial sums by the place mod 8, then a tree.
void SumsOfBlocks(const float* x, int32_t n, double* sums);

// The sum of sums, in order.
double SumOf(absl::Span<const double> sums);

// The first place of p [n], none negative, where the sum of what is before it and it exceeds
// `target`; else the last place with something, or -1. `sums` are those of p's blocks.
int32_t PlaceOf(double target, const float* p, int32_t n, const double* sums);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_BLOCK_SUMMARY_H_
