#include "worker/block_summary.h"

#include <algorithm>

namespace dovetail::worker {
namespace {

constexpr int kLanes = 8;

// Calls whole(from, block) for the whole blocks of x, and part(from, block, n) for what is left.
template <typename Whole, typename Part>
void ForBlocks(const float* x, int32_t n, const Whole& whole, const Part& part) {
  int32_t block = 0;
  for (; (block + 1) * kSummaryBlock <= n; ++block) whole(x + block * kSummaryBlock, block);
  const int32_t left = n - block * kSummaryBlock;
  if (left > 0) part(x + block * kSummaryBlock, block, left);
}

// Fixed counts, so that a compiler makes vectors of them.
float Largest(const float* x) {
  float largest[2 * kLanes];
  for (int l = 0; l < 2 * kLanes; ++l) largest[l] = x[l];
  for (int i = 2 * kLanes; i < kSummaryBlock; i += 2 * kLanes) {
    for (int l = 0; l < 2 * kLanes; ++l) largest[l] = largest[l] < x[i + l] ? x[i + l] : largest[l];
  }
  return *std::max_element(largest, largest + 2 * kLanes);
}

double Tree(const double* sums) {
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

double Sum(const float* x) {
  double sums[kLanes] = {};
  for (int i = 0; i < kSummaryBlock; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) sums[l] += x[i + l];
  }
  return Tree(sums);
}

double SumOfPart(const float* x, int32_t n) {
  double sums[kLanes] = {};
  for (int32_t i = 0; i < n; ++i) sums[i % kLanes] += x[i];
  return Tree(sums);
}

}  // namespace

void LargestOfBlocks(const float* x, int32_t n, float* largest) {
  ForBlocks(
      x, n, [&](const float* from, int32_t b) { largest[b] = Largest(from); },
      [&](const float* from, int32_t b, int32_t left) {
        largest[b] = *std::max_element(from, from + left);
      });
}

void SumsOfBlocks(const float* x, int32_t n, double* sums) {
  ForBlocks(
      x, n, [&](const float* from, int32_t b) { sums[b] = Sum(from); },
      [&](const float* from, int32_t b, int32_t left) { sums[b] = SumOfPart(from, left); });
}

double SumOf(absl::Span<const double> sums) {
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

int32_t PlaceOf(double target, const float* p, int32_t n, const double* sums) {
  int32_t last = -1;
  const auto walk = [&](double sum, int32_t begin, int32_t end) {
    for (int32_t i = begin; i < end && sum <= target; ++i) {
      if (p[i] <= 0) continue;
      sum += p[i];
      last = i;
    }
    return last;
  };
  double before = 0;
  for (int32_t block = 0; block < NumSummaryBlocks(n); ++block) {
    const int32_t begin = block * kSummaryBlock;
    if (before + sums[block] > target)
      return walk(before, begin, std::min(begin + kSummaryBlock, n));
    before += sums[block];
  }
  for (last = n - 1; last >= 0 && p[last] <= 0;) --last;
  return last;
}

}  // namespace dovetail::worker
