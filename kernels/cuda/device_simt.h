// The words of device.h over the shim.
#ifndef DOVETAIL_KERNELS_CUDA_DEVICE_SIMT_H_
#define DOVETAIL_KERNELS_CUDA_DEVICE_SIMT_H_

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

#include "kernels/cuda/device_bytes.h"
#include "kernels/simt/mma.h"
#include "kernels/simt/shared_array.h"
#include "kernels/simt/simt.h"

#define DT_KERNEL static
#define DT_BOUNDED_KERNEL(threads, blocks) static
#define DT_KERNEL_OF(threads) static
#define DT_UNROLL
// Made when a thread of the host first runs the kernel: every thread of a program would have room
// for all arrays of all kernels otherwise.
#define DT_SHARED(T, name, n)                                                             \
  static thread_local std::unique_ptr<::dovetail::simt::SharedArray<T, (n)>> name##_made; \
  if (name##_made == nullptr) {                                                           \
    name##_made = std::make_unique<::dovetail::simt::SharedArray<T, (n)>>(#name);         \
  }                                                                                       \
  auto& name = name##_made->Enter()
// Arguments are copied: a launch may be taken down.
#define DT_LAUNCH(kernel, grid, block, stream, ...) \
  ::dovetail::simt::Launch(stream, #kernel, grid, block, [=] { kernel(__VA_ARGS__); })

namespace dovetail::kernels::cuda {

using Stream = simt::Stream*;
using Grid = simt::Dim;

DT_DEVICE int ThreadIndex() { return static_cast<int>(simt::ThisThread().thread.x); }
DT_DEVICE int BlockThreads() { return static_cast<int>(simt::ThisThread().block_dim.x); }
DT_DEVICE int BlockIndex() { return static_cast<int>(simt::ThisThread().block.x); }
DT_DEVICE int BlockIndexY() { return static_cast<int>(simt::ThisThread().block.y); }

DT_DEVICE void SyncBlock() { simt::SyncBlock(); }
// The same where warps of the block, which has so many threads, wait in different places.
template <int kThreads>
static inline void SyncBlockApart() {
  simt::SyncBlock();
}
DT_DEVICE void SyncWarp() { simt::SyncWarp(0xffffffff); }

template <typename T>
struct ShuffleOp {
  struct In {
    T value;
    int source;
  };
  using Out = T;
  static T Of(const In (&lanes)[simt::kWarpLanes], uint32_t mask, int lane) {
    return lanes[lanes[lane].source & (simt::kWarpLanes - 1)].value;
  }
};
// v of lane `source`; all lanes take part.
template <typename T>
static inline T Shuffle(T v, int source) {
  return simt::Exchange<ShuffleOp<T>>("Shuffle", 0xffffffff, {v, source});
}

// Several floats of a lane: the first n are what lane `source` has.
template <int N>
struct Floats {
  float v[N];
};
template <int N>
static inline Floats<N> ShuffleFloats(const Floats<N>& v, int n, int source) {
  return Shuffle(v, source);
}

struct BallotOp {
  using In = bool;
  using Out = uint32_t;
  static uint32_t Of(const bool (&lanes)[simt::kWarpLanes], uint32_t mask, int lane) {
    uint32_t bits = 0;
    for (int i = 0; i < simt::kWarpLanes; ++i) bits |= static_cast<uint32_t>(lanes[i]) << i;
    return bits;
  }
};
DT_DEVICE uint32_t Ballot(bool v) { return simt::Exchange<BallotOp>("Ballot", 0xffffffff, v); }

DT_DEVICE float Fma(float a, float b, float c) { return std::fma(a, b, c); }
DT_DEVICE float SquareRoot(float v) { return std::sqrt(v); }

// c + the products of four signed bytes.
DT_DEVICE int32_t Dp4a(int32_t a, int32_t b, int32_t c) {
  for (int i = 0; i < 4; ++i) {
    c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  }
  return c;
}

// Of the two int16 of a dword.
DT_DEVICE int32_t SumOfHalves(uint32_t pair) {
  return static_cast<int16_t>(pair & 0xffffu) + (static_cast<int32_t>(pair) >> 16);
}

template <typename V, typename T>
static inline V LoadVector(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(V) != 0) simt::Fail("a load that is not aligned");
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}
// The cache line of `from` will be read.
DT_DEVICE void PrefetchL2(const void* from) {}
template <typename V, typename T>
static inline void StoreAligned(T* to, const V& v) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(V) != 0) simt::Fail("a store that is not aligned");
  std::memcpy(to, &v, sizeof(V));
}
template <typename V>
static inline void StoreVector16(void* to, const V& v) {
  static_assert(sizeof(V) == 16);
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) simt::Fail("a store that is not aligned");
  std::memcpy(to, &v, 16);
}
template <typename V, typename Shared>
static inline V ReadShared(Shared& shared, int64_t index) {
  return shared.template ReadVector<V>(index);
}
template <typename V, typename Shared>
static inline void WriteShared(Shared& shared, int64_t index, const V& v) {
  shared.WriteVector(index, v);
}

// c (8 weight rows x 8 tokens) += a (8 x 16 signed bytes) b; fragments as PTX has them for
// mma.m8n8k16 of .s8.
DT_DEVICE void MmaRows8(int32_t& c0, int32_t& c1, int32_t a, int32_t b) {
  simt::MmaRows8(c0, c1, a, b);
}

#include "kernels/cuda/device_sm75.inl.h"

DT_DEVICE bool HasSm80() { return simt::ThisThread().capability >= 80; }

// c (16 weight rows x 8 tokens) += a (16 x 32 or 16 x 16 signed bytes) b; fragments as PTX has them
// for mma.m16n8k32 and .m16n8k16 of .s8.
DT_DEVICE void MmaK32(int32_t (&c)[4], const int32_t (&a)[4], const int32_t (&b)[2]) {
  if (!HasSm80()) return sm75::MmaK32(c, a, b);
  simt::Mma<8>(c, a, b);
}
DT_DEVICE void MmaK16(int32_t (&c)[4], const int32_t (&a)[2], const int32_t (&b)[1]) {
  if (!HasSm80()) return sm75::MmaK16(c, a, b);
  simt::Mma<4>(c, a, b);
}

// 16 bytes from global memory to shared[index ..), done when WaitCopies says so.
template <typename Shared>
static inline void CopyAsync16(Shared& shared, int64_t index, const void* from) {
  if (!HasSm80()) return sm75::CopyAsync16(shared, index, from);
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) simt::Fail("a copy that is not aligned");
  shared.BeginCopy(index, from, 16);
}
// The same for 4 bytes.
template <typename Shared>
static inline void CopyAsync4(Shared& shared, int64_t index, const void* from) {
  if (!HasSm80()) return sm75::CopyAsync4(shared, index, from);
  if (reinterpret_cast<uintptr_t>(from) % 4 != 0) simt::Fail("a copy that is not aligned");
  shared.BeginCopy(index, from, 4);
}
DT_DEVICE void CommitCopies() { simt::CommitCopies(); }
template <int kNewest>
static inline void WaitCopies() {
  simt::WaitCopies(kNewest);
}

// Sets a flag that others may set at the same time.
DT_DEVICE void RaiseFlag(int32_t* flag) { *flag = 1; }
// Adds one to what other blocks count up, too; returns what it was.
DT_DEVICE int32_t CountUp(int32_t* counter) { return (*counter)++; }
// What this thread has written or knows to be written is seen by the host, and by other blocks,
// before what it writes from here on.
DT_DEVICE void FenceForHost() {}
// Who sees `v` there sees all of that.
DT_DEVICE void StoreForHost(uint64_t* to, uint64_t v) {
  std::atomic_ref<uint64_t>(*to).store(v, std::memory_order_release);
}

}  // namespace dovetail::kernels::cuda

#endif  // DOVETAIL_KERNELS_CUDA_DEVICE_SIMT_H_
