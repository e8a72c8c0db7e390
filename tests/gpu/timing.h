// Memory and times of launches, for benchmarks on a GPU. A CUDA error ends the program.
#ifndef DOVETAIL_TESTS_GPU_TIMING_H_
#define DOVETAIL_TESTS_GPU_TIMING_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace dovetail::kernels {

inline constexpr int kCopies = 4;        // calls that are timed as one
inline constexpr int kRepetitions = 20;  // of these; fewer where they have taken kEnoughMs
inline constexpr float kEnoughMs = 200;
inline bool started_once = false;  // each launch once, for a profiler; no time is taken

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

template <typename T>
T* Uploaded(const std::vector<T>& from) {
  T* to = Allocate<T>(static_cast<int64_t>(from.size()));
  Check(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  return to;
}

// Milliseconds of one call of `launch`, of which kCopies follow each other: the median. It is told
// which of them it is.
template <typename Fn>
double Milliseconds(const Fn& launch) {
  if (started_once) {
    launch(0);
    Check(cudaDeviceSynchronize());
    return 1;
  }
  cudaEvent_t from, to;
  Check(cudaEventCreate(&from));
  Check(cudaEventCreate(&to));
  std::vector<float> times;
  float all_ms = 0;
  for (int i = 0; i < kRepetitions + 2 && (all_ms < kEnoughMs || i < 4); ++i) {
    Check(cudaEventRecord(from));
    for (int copy = 0; copy < kCopies; ++copy) launch(copy);
    Check(cudaGetLastError());
    Check(cudaEventRecord(to));
    Check(cudaEventSynchronize(to));
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, from, to));
    all_ms += ms;
    if (i >= 2) times.push_back(ms / kCopies);
  }
  Check(cudaEventDestroy(from));
  Check(cudaEventDestroy(to));
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_GPU_TIMING_H_
