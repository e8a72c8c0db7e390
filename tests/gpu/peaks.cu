#include "tests/gpu/peaks.h"

#include "kernels/cuda/device.h"

namespace dovetail::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kLoops = 4096;
constexpr int kAtOnce = 8;  // products of a warp that do not wait for each other
constexpr double kMultiplicationsOfOne = 16.0 * 8 * 32;
constexpr int kSums = 32;  // of a thread, the same for multiply-adds

__global__ void __launch_bounds__(kThreads, kPeakBlocksAtOnce) ProductsKernel(int32_t* out) {
  const int32_t seed = static_cast<int32_t>(threadIdx.x) * 0x01030507;
  const int32_t a[4] = {seed, seed + 1, seed + 2, seed + 3};
  const int32_t b[2] = {~seed, seed ^ 0x55};
  int32_t sums[kAtOnce][4] = {};
  for (int i = 0; i < kLoops; ++i) {
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) cuda::MmaK32(sums[j], a, b);
  }
  int32_t all = 0;
#pragma unroll
  for (int j = 0; j < kAtOnce; ++j) all ^= sums[j][0] ^ sums[j][1] ^ sums[j][2] ^ sums[j][3];
  atomicXor(&out[blockIdx.x], all);
}

__global__ void __launch_bounds__(kThreads, kPeakBlocksAtOnce) MultiplyAddsKernel(int32_t* out) {
  const float factor = 1.0f + static_cast<float>(threadIdx.x) * 0x1p-20f;
  float sums[kSums];
#pragma unroll
  for (int j = 0; j < kSums; ++j) sums[j] = static_cast<float>(j);
  for (int i = 0; i < kLoops; ++i) {
#pragma unroll
    for (int j = 0; j < kSums; ++j) sums[j] = cuda::Fma(sums[j], factor, factor);
  }
  uint32_t all = 0;
#pragma unroll
  for (int j = 0; j < kSums; ++j) all ^= cuda::BitsOf(sums[j]);
  atomicXor(&out[blockIdx.x], static_cast<int32_t>(all));
}

}  // namespace

double StartInt8Products(int blocks, int32_t* out) {
  ProductsKernel<<<static_cast<unsigned>(blocks), kThreads>>>(out);
  return kMultiplicationsOfOne * kAtOnce * kLoops * (kThreads / 32) * blocks;
}

double StartF32MultiplyAdds(int blocks, int32_t* out) {
  MultiplyAddsKernel<<<static_cast<unsigned>(blocks), kThreads>>>(out);
  return double{kSums} * kLoops * kThreads * blocks;
}

}  // namespace dovetail::kernels
