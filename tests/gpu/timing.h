// Memory and times of launches, for benchmarks on a GPU. A CUDA error ends the program.
#ifndef DOVETAIL_TESTS_GPU_TIMING_H_
#define DOVETAIL_TESTS_GPU_TIMING_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace dovetail::kernels {

inline constexpr int kCopies = 4;  // calls that are timed as one
inline constexpr int kRepetitions = 20;

inline void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_bench: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <typename T>
T* Allocate(int64_t count) {
  void* p = nullptr;
  Check(cudaMalloc(&p, static_cast<size_t>(count) * sizeof(T)));
  Check(cudaMemset(p, 0x11, static_cast<size_t>(count) * sizeof(T)));
  return static_cast<T*>(p);
}

// Milliseconds of one call of `launch`, of which kCopies follow each other: the median. It is told
// which of them it is.
template <typename Fn>
double Milliseconds(const Fn& launch) {
  cudaEvent_t from, to;
  Check(cudaEventCreate(&from));
  Check(cudaEventCreate(&to));
  std::vector<float> times;
  for (int i = 0; i < kRepetitions + 2; ++i) {
    Check(cudaEventRecord(from));
    for (int copy = 0; copy < kCopies; ++copy) launch(copy);
    Check(cudaGetLastError());
    Check(cudaEventRecord(to));
    Check(cudaEventSynchronize(to));
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, from, to));
    if (i >= 2) times.push_back(ms / kCopies);
  }
  Check(cudaEventDestroy(from));
  Check(cudaEventDestroy(to));
  std::nth_element(times.begin(), times.begin() + kRepetitions / 2, times.end());
  return times[kRepetitions / 2];
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_GPU_TIMING_H_
