// How fast the GPU's products are: for each weight type a matrix that is larger than the caches,
// with 1 to 512 activation rows. One JSON object to standard output; tools/gpu_check makes a table
// of it.
//
// Shares are of what copying a gigabyte on the device reads and writes, measured first.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/packed_layout.h"
#include "kernels/cuda/cuda_table.h"
#include "kernels/kernel_table.h"

namespace dovetail::kernels {
namespace {

constexpr int64_t kN = 16384, kK = 8192;
constexpr int64_t kRows[] = {1, 2, 4, 8, 16, 64, 512};
constexpr int kRepetitions = 20;
constexpr int kNoDevice = 77;

void Check(cudaError_t error) {
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

// Milliseconds of one call of `launch`: the median.
template <typename Fn>
double Milliseconds(const Fn& launch) {
  cudaEvent_t from, to;
  Check(cudaEventCreate(&from));
  Check(cudaEventCreate(&to));
  std::vector<float> times;
  for (int i = 0; i < kRepetitions + 2; ++i) {
    Check(cudaEventRecord(from));
    launch();
    Check(cudaGetLastError());
    Check(cudaEventRecord(to));
    Check(cudaEventSynchronize(to));
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, from, to));
    if (i >= 2) times.push_back(ms);
  }
  Check(cudaEventDestroy(from));
  Check(cudaEventDestroy(to));
  std::nth_element(times.begin(), times.begin() + kRepetitions / 2, times.end());
  return times[kRepetitions / 2];
}

// GB/s that a copy reads and writes together.
double CopyBandwidth() {
  constexpr int64_t kBytes = int64_t{1} << 30;
  uint8_t* from = Allocate<uint8_t>(kBytes);
  uint8_t* to = Allocate<uint8_t>(kBytes);
  const double ms = Milliseconds(
      [&] { Check(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, nullptr)); });
  Check(cudaFree(from));
  Check(cudaFree(to));
  return 2 * static_cast<double>(kBytes) / ms / 1e6;
}

nlohmann::json BenchType(WeightType type, double copy) {
  const int32_t block = ActivationBlock(type);
  const int64_t bytes = PackedBytes(PackedLayout::kP16, type, kN, kK);
  const int64_t most = *std::max_element(std::begin(kRows), std::end(kRows));
  DeviceMatmulArgs args = {};
  args.w = Allocate<uint8_t>(bytes);
  args.type = type;
  args.n = kN;
  args.k = kK;
  args.x = {Allocate<float>(most * kK),
            kK,
            Allocate<int8_t>(most * kK),
            kK,
            Allocate<float>(most * kK / 16),
            block == 0 ? 0 : kK / block,
            Allocate<int16_t>(most * kK / 16),
            kK / 16,
            kK,
            block};
  args.y = Allocate<float>(most * kN);
  args.y_stride = kN;
  nlohmann::json result = {{"type", InfoOf(type).name}, {"weight_bytes", bytes}};
  for (int64_t rows : kRows) {
    args.rows = static_cast<int32_t>(rows);
    const double ms = Milliseconds([&] { CudaTable().matmul(args, 0, kN / kPanelRows, nullptr); });
    const double gbs = static_cast<double>(bytes) / ms / 1e6;
    result["rows"].push_back({{"rows", rows},
                              {"ms", ms},
                              {"weights_gb_per_s", gbs},
                              {"share_of_copy", gbs / copy},
                              {"tera_multiplications_per_s", 1e-9 * rows * kN * kK / ms}});
  }
  for (const void* p : {static_cast<const void*>(args.w), static_cast<const void*>(args.x.f32),
                        static_cast<const void*>(args.x.q), static_cast<const void*>(args.x.d),
                        static_cast<const void*>(args.x.bsum), static_cast<const void*>(args.y)}) {
    Check(cudaFree(const_cast<void*>(p)));
  }
  return result;
}

int Main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return kNoDevice;
  }
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0));
  const double copy = CopyBandwidth();
  nlohmann::json json = {
      {"device", device.name},
      {"compute_capability", std::to_string(device.major) + "." + std::to_string(device.minor)},
      {"copy_gb_per_s", copy},
      {"n", kN},
      {"k", kK}};
  for (WeightType type : SupportedWeightTypes()) json["types"].push_back(BenchType(type, copy));
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace dovetail::kernels

int main() { return dovetail::kernels::Main(); }
