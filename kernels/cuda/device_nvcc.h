// The words of device.h as nvcc has them.
#ifndef DOVETAIL_KERNELS_CUDA_DEVICE_NVCC_H_
#define DOVETAIL_KERNELS_CUDA_DEVICE_NVCC_H_

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/quant/codebooks_expand.h"

#define DT_KERNEL static __global__
#define DT_BOUNDED_KERNEL(threads, blocks) static __global__ __launch_bounds__(threads, blocks)
#define DT_KERNEL_OF(threads) static __global__ __launch_bounds__(threads)
#define DT_DEVICE static __device__ __forceinline__
#define DT_UNROLL _Pragma("unroll")
#define DT_DEVICE_MEMBER static __device__ __forceinline__
#define DT_SHARED(T, name, n) __shared__ __align__(16) T name[n]
#define DT_LAUNCH(kernel, grid, block, stream, ...) \
  if ((grid).x > 0 && (grid).y > 0)                 \
  kernel<<<dim3((grid).x, (grid).y), block, 0, stream>>>(__VA_ARGS__)

namespace dovetail::kernels::cuda {

using Stream = cudaStream_t;
struct Grid {
  uint32_t x = 1;
  uint32_t y = 1;
};

DT_DEVICE int ThreadIndex() { return static_cast<int>(threadIdx.x); }
DT_DEVICE int BlockThreads() { return static_cast<int>(blockDim.x); }
DT_DEVICE int BlockIndex() { return static_cast<int>(blockIdx.x); }
DT_DEVICE int BlockIndexY() { return static_cast<int>(blockIdx.y); }

DT_DEVICE void SyncBlock() { __syncthreads(); }
template <int kThreads>
DT_DEVICE void SyncBlockApart() {
  asm volatile("barrier.sync 1, %0;" ::"n"(kThreads) : "memory");
}
DT_DEVICE void SyncWarp() { __syncwarp(); }

template <typename T>
DT_DEVICE T Shuffle(T v, int source) {
  return __shfl_sync(0xffffffff, v, source);
}
// Several floats of a lane: the first n are what lane `source` has.
template <int N>
struct Floats {
  float v[N];
};
template <int N>
DT_DEVICE Floats<N> ShuffleFloats(const Floats<N>& v, int n, int source) {
  Floats<N> other = {};
  DT_UNROLL
  for (int i = 0; i < N; ++i) {
    if (i < n) other.v[i] = Shuffle(v.v[i], source);
  }
  return other;
}
DT_DEVICE uint32_t Ballot(bool v) { return __ballot_sync(0xffffffff, v); }

DT_DEVICE float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DT_DEVICE float SquareRoot(float v) { return __fsqrt_rn(v); }
DT_DEVICE uint32_t BitsOf(float v) { return __float_as_uint(v); }
DT_DEVICE float FloatOf(uint32_t v) { return __uint_as_float(v); }
DT_DEVICE float HalfToFloat(uint16_t v) { return __half2float(__ushort_as_half(v)); }
DT_DEVICE uint16_t FloatToHalf(float v) { return __half_as_ushort(__float2half_rn(v)); }

DT_DEVICE int32_t Dp4a(int32_t a, int32_t b, int32_t c) { return __dp4a(a, b, c); }
DT_DEVICE int32_t SumOfHalves(uint32_t pair) {
  return __dp2a_lo(static_cast<int32_t>(pair), 0x0101, 0);
}
DT_DEVICE uint32_t BytePermute(uint32_t a, uint32_t b, uint32_t select) {
  return __byte_perm(a, b, select);
}
DT_DEVICE uint32_t SubtractBytes(uint32_t a, uint32_t b) { return __vsub4(a, b); }

template <typename V, typename T>
DT_DEVICE V LoadVector(const T* from) {
  return *reinterpret_cast<const V*>(from);
}
DT_DEVICE void PrefetchL2(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}
template <typename V, typename T>
DT_DEVICE void StoreAligned(T* to, const V& v) {
  *reinterpret_cast<V*>(to) = v;
}
template <typename V>
DT_DEVICE void StoreVector16(void* to, const V& v) {
  static_assert(sizeof(V) == 16);
  *static_cast<V*>(to) = v;
}
template <typename V, typename T>
DT_DEVICE V ReadShared(const T* shared, int64_t index) {
  return *reinterpret_cast<const V*>(shared + index);
}
template <typename V, typename T>
DT_DEVICE void WriteShared(T* shared, int64_t index, const V& v) {
  *reinterpret_cast<V*>(shared + index) = v;
}

// Eight rows x eight tokens x 16 k: what 7.5 has.
DT_DEVICE void MmaRows8(int32_t& c0, int32_t& c1, int32_t a, int32_t b) {
  asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+r"(c0), "+r"(c1)
      : "r"(a), "r"(b));
}

#include "kernels/cuda/device_sm75.inl.h"

#if __CUDA_ARCH__ >= 800 && !defined(DOVETAIL_SM75_FORMS)
DT_DEVICE void MmaK32(int32_t (&c)[4], const int32_t (&a)[4], const int32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DT_DEVICE void MmaK16(int32_t (&c)[4], const int32_t (&a)[2], const int32_t (&b)[1]) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}
template <typename T>
DT_DEVICE void CopyAsync16(T* shared, int64_t index, const void* from) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared + index));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
template <typename T>
DT_DEVICE void CopyAsync4(T* shared, int64_t index, const void* from) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared + index));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
DT_DEVICE void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kNewest>
DT_DEVICE void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
}
#else
using sm75::CopyAsync16;
using sm75::CopyAsync4;
using sm75::MmaK16;
using sm75::MmaK32;
DT_DEVICE void CommitCopies() {}
template <int kNewest>
DT_DEVICE void WaitCopies() {}
#endif

static __device__ const Codebooks device_codebooks = ExpandCodebooks();
DT_DEVICE const Codebooks& DeviceCodebooks() { return device_codebooks; }

DT_DEVICE void RaiseFlag(int32_t* flag) { *flag = 1; }
DT_DEVICE int32_t CountUp(int32_t* counter) { return atomicAdd(counter, 1); }
DT_DEVICE void FenceForHost() { __threadfence_system(); }
DT_DEVICE void StoreForHost(uint64_t* to, uint64_t v) {
  asm volatile("st.release.sys.u64 [%0], %1;" ::"l"(to), "l"(v) : "memory");
}

}  // namespace dovetail::kernels::cuda

#endif  // DOVETAIL_KERNELS_CUDA_DEVICE_NVCC_H_
