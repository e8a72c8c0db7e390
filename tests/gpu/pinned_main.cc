// The main function of kernel tests on a GPU: everything that a test allocates, and the stack that
// it runs on, lies in one pinned piece of memory that the host and the device read and write at the
// same addresses. So tests that were written for CPU kernels pass their own pointers to a GPU.
//
// Exits with 77 where there is no device.
#include <cuda_runtime.h>
#include <pthread.h>

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

#include "gtest/gtest.h"

namespace {

constexpr size_t kArenaBytes = size_t{8} << 30;
constexpr size_t kStackBytes = size_t{64} << 20;
constexpr int kNoDevice = 77;

// Pieces of powers of two; what is freed is used again for the same size.
class Arena {
 public:
  void Start(void* data, size_t bytes) {
    next_ = begin_ = static_cast<std::byte*>(data);
    end_ = begin_ + bytes;
  }
  bool Owns(const void* p) const { return p >= begin_ && p < end_; }

  void* Allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const int order = OrderOf(bytes);
    if (Piece* piece = free_[order]; piece != nullptr) {
      free_[order] = piece->next;
      return piece;
    }
    const size_t size = kHeader + (size_t{1} << order);
    if (next_ == nullptr || size > static_cast<size_t>(end_ - next_)) return nullptr;
    std::byte* piece = next_;
    next_ += size;
    *reinterpret_cast<int*>(piece) = order;
    return piece + kHeader;
  }

  void Free(void* p) {
    const std::lock_guard lock(mutex_);
    const int order = *reinterpret_cast<int*>(static_cast<std::byte*>(p) - kHeader);
    Piece* piece = static_cast<Piece*>(p);
    piece->next = free_[order];
    free_[order] = piece;
  }

 private:
  struct Piece {
    Piece* next;
  };
  static constexpr size_t kHeader = 64;  // so that every piece is aligned to it
  static int OrderOf(size_t bytes) {
    return bytes <= kHeader ? std::countr_zero(kHeader)
                            : static_cast<int>(std::bit_width(bytes - 1));
  }

  std::mutex mutex_;
  std::byte* begin_ = nullptr;
  std::byte* end_ = nullptr;
  std::byte* next_ = nullptr;
  Piece* free_[64] = {};
};

Arena arena;
std::atomic<bool> tests_run{false};  // before that, and for CUDA's own start, the heap is used

void* AllocateOrDie(size_t bytes) {
  void* p = tests_run.load() ? arena.Allocate(bytes) : std::malloc(bytes);
  if (p == nullptr) {
    std::fprintf(stderr, "no memory for %zu bytes\n", bytes);
    std::abort();
  }
  return p;
}

void Release(void* p) {
  if (arena.Owns(p)) {
    arena.Free(p);
  } else {
    std::free(p);
  }
}

void* RunTests(void* status) {
  *static_cast<int*>(status) = RUN_ALL_TESTS();
  return nullptr;
}

int RunOnPinnedStack() {
  void* stack = arena.Allocate(kStackBytes);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kStackBytes);
  int status = 1;
  pthread_t thread;
  if (pthread_create(&thread, &attributes, RunTests, &status) != 0) return 1;
  pthread_join(thread, nullptr);
  return status;
}

}  // namespace

void* operator new(size_t bytes) { return AllocateOrDie(bytes); }
void* operator new(size_t bytes, std::align_val_t) { return AllocateOrDie(bytes); }
void operator delete(void* p) noexcept { Release(p); }
void operator delete(void* p, size_t) noexcept { Release(p); }
void operator delete(void* p, std::align_val_t) noexcept { Release(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { Release(p); }

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  int devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&devices);
      error != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(error));
    return kNoDevice;
  }
  void* memory = nullptr;
  if (const cudaError_t error = cudaHostAlloc(&memory, kArenaBytes, cudaHostAllocPortable);
      error != cudaSuccess) {
    std::fprintf(stderr, "cudaHostAlloc of %zu bytes: %s\n", kArenaBytes,
                 cudaGetErrorString(error));
    return 1;
  }
  arena.Start(memory, kArenaBytes);
  tests_run.store(true);
  const int status = RunOnPinnedStack();
  tests_run.store(false);
  return status;
}
