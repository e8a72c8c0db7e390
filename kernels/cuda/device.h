// What kernels are written in: CUDA's vocabulary where nvcc compiles them, and the same words over
// the shim (kernels/simt) where g++ does. A kernel uses nothing of CUDA but what is here.
//
//   DT_KERNEL void F(Args args)     a kernel; DT_LAUNCH(F, grid, block, stream, args) starts it
//   DT_BOUNDED_KERNEL(threads, n)   the same, with registers for n blocks on a multiprocessor: nvcc
//                                   has as many loads under way as these are enough for
//   DT_KERNEL_OF(threads)           one whose blocks have so many: it fits whatever it computes
//   DT_DEVICE                       a function that kernels call
//   DT_SHARED(T, name, n)           an array of the block: name[i], ReadShared<V>(name, i)
//   ThreadIndex, BlockIndex, ..     numbers of this thread
//
// Floats: + - * / are single IEEE operations (nvcc gets -fmad=false), Fma is written out.
#ifndef DOVETAIL_KERNELS_CUDA_DEVICE_H_
#define DOVETAIL_KERNELS_CUDA_DEVICE_H_

#include <cstdint>

#ifdef __CUDACC__
#include "kernels/cuda/device_nvcc.h"
#else
#include "kernels/cuda/device_simt.h"
#endif

namespace dovetail::kernels::cuda {

inline constexpr int kWarp = 32;

struct alignas(8) Int2 {
  int32_t x, y;
};
struct alignas(16) Int4 {
  int32_t x, y, z, w;
};
struct alignas(16) Float4 {
  float v[4];
};

DT_DEVICE int Lane() { return ThreadIndex() % kWarp; }
DT_DEVICE int WarpIndex() { return ThreadIndex() / kWarp; }

// v of the lane that is `lanes` away by exclusive or.
template <typename T>
DT_DEVICE T ShuffleXor(T v, int lanes) {
  return Shuffle(v, Lane() ^ lanes);
}

// Bytes of shared memory from `at` on, for what reads either kind of memory by LoadVector.
template <typename Shared>
struct SharedBytes {
  Shared* shared;
  int at;
};
template <typename Shared>
DT_DEVICE SharedBytes<Shared> BytesFrom(Shared& shared, int at) {
  return {&shared, at};
}
template <typename Shared>
DT_DEVICE SharedBytes<Shared> operator+(SharedBytes<Shared> bytes, int n) {
  return {bytes.shared, bytes.at + n};
}
template <typename V, typename Shared>
DT_DEVICE V LoadVector(SharedBytes<Shared> from) {
  return ReadShared<V>(*from.shared, from.at);
}

// Adds the partial sums of 32 lanes as a halving tree (docs/numerics.md); all lanes have the sum.
// Two lanes add the same two numbers, so that all have the same bits.
template <typename T>
DT_DEVICE T TreeSum(T v) {
  for (int half = kWarp / 2; half > 0; half /= 2) v = v + ShuffleXor(v, half);
  return v;
}

// The first n of v become such sums; all lanes have the same n.
template <int N>
DT_DEVICE void TreeSums(Floats<N>& v, int n) {
  for (int half = kWarp / 2; half > 0; half /= 2) {
    const Floats<N> other = ShuffleFloats(v, n, Lane() ^ half);
    DT_UNROLL
    for (int i = 0; i < N; ++i) {
      if (i < n) v.v[i] = v.v[i] + other.v[i];
    }
  }
}

template <typename T>
DT_DEVICE T Smaller(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
DT_DEVICE T Larger(T a, T b) {
  return b > a ? b : a;
}

template <typename T>
DT_DEVICE T WarpMax(T v) {
  for (int half = kWarp / 2; half > 0; half /= 2) v = Larger(v, ShuffleXor(v, half));
  return v;
}

DT_DEVICE int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace dovetail::kernels::cuda

#endif  // DOVETAIL_KERNELS_CUDA_DEVICE_H_
