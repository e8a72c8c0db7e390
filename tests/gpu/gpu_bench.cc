// gpu_bench [--limits | --profile] [TYPE ...]: how fast the GPU's products are, with 1 to 512
// activation rows, for each weight type or those named, attention, and ops on rows. One JSON object
// to standard output; tools/gpu_check makes tables of it. What is done so far is told on standard
// error.
//
// Matrices of 256 MB and more, several of them in turn, so that no cache has what is read. Shares
// are of what this GPU does at most, measured first: of what copying a gigabyte on it reads and
// writes, of the 8-bit products and of the f32 multiply-adds that it makes in registers. With
// --limits these are all; with --profile each kernel is started once, for a profiler.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/packed_layout.h"
#include "kernels/cuda/cuda_table.h"
#include "kernels/kernel_table.h"
#include "tests/gpu/attention_bench.h"
#include "tests/gpu/peaks.h"
#include "tests/gpu/rows_bench.h"
#include "tests/gpu/timing.h"

namespace dovetail::kernels {
namespace {

constexpr int64_t kK = 8192;
constexpr int64_t kLeastBytes = int64_t{256} << 20;  // of a matrix
constexpr int64_t kRowsOfN = 1024;                   // n is a multiple
constexpr int64_t kRows[] = {1, 2, 4, 8, 16, 32, 64, 512};
constexpr double kEnoughOfCopy = 0.75;
constexpr int kNoDevice = 77;

// GB/s that a copy reads and writes together.
double CopyBandwidth() {
  constexpr int64_t kBytes = int64_t{1} << 30;
  uint8_t* from = Allocate<uint8_t>(kBytes);
  uint8_t* to = Allocate<uint8_t>(kBytes);
  const double ms = Milliseconds(
      [&](int) { Check(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, nullptr)); });
  Check(cudaFree(from));
  Check(cudaFree(to));
  return 2 * static_cast<double>(kBytes) / ms / 1e6;
}

// GB/s from the host's pinned memory.
double UploadBandwidth() {
  constexpr int64_t kBytes = int64_t{256} << 20;
  void* from = nullptr;
  Check(cudaHostAlloc(&from, kBytes, cudaHostAllocDefault));
  uint8_t* to = Allocate<uint8_t>(kBytes);
  const double ms = Milliseconds(
      [&](int) { Check(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyHostToDevice, nullptr)); });
  Check(cudaFreeHost(from));
  Check(cudaFree(to));
  return static_cast<double>(kBytes) / ms / 1e6;
}

// 10^12 of what `start` starts, per second, by all multiprocessors.
double Peak(int multiprocessors, double (*start)(int blocks, int32_t* out)) {
  const int blocks = kPeakBlocksAtOnce * multiprocessors;
  int32_t* out = Allocate<int32_t>(blocks);
  double count = 0;
  const double ms = Milliseconds([&](int) { count = start(blocks, out); });
  Check(cudaFree(out));
  return count / ms / 1e9;
}

struct Limits {
  double copy = 0;       // GB/s
  double int8_peak = 0;  // 10^12 multiplications per second
  double f32_peak = 0;   // 10^12 multiply-adds per second
};

// The shares that count: with one row of what a copy reaches, with many of the products' peak.
nlohmann::json RowFigures(int64_t rows, int64_t n, int64_t bytes, double ms, const Limits& limits) {
  const double gbs = static_cast<double>(bytes) / ms / 1e6;
  const double tera = 1e-9 * static_cast<double>(rows * n * kK) / ms;
  nlohmann::json figures = {{"rows", rows},
                            {"ms", ms},
                            {"weights_gb_per_s", gbs},
                            {"share_of_copy", gbs / limits.copy},
                            {"tera_multiplications_per_s", tera},
                            {"share_of_int8_peak", tera / limits.int8_peak}};
  if (rows == 1) figures["enough_of_copy"] = gbs >= kEnoughOfCopy * limits.copy;
  return figures;
}

// As many columns of a type as make a matrix of kLeastBytes.
int64_t ColumnsFor(WeightType type) {
  const int64_t bytes = PackedBytes(PackedLayout::kP16, type, kRowsOfN, kK);
  return (kLeastBytes + bytes - 1) / bytes * kRowsOfN;
}

nlohmann::json BenchType(WeightType type, const Limits& limits) {
  const int32_t block = ActivationBlock(type);
  const int64_t n = ColumnsFor(type);
  const int64_t bytes = PackedBytes(PackedLayout::kP16, type, n, kK);
  const int64_t most = *std::max_element(std::begin(kRows), std::end(kRows));
  const uint8_t* weights = Allocate<uint8_t>(kCopies * bytes);
  DeviceMatmulArgs args = {};
  args.type = type;
  args.n = n;
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
  args.y = Allocate<float>(most * n);
  args.y_stride = n;
  nlohmann::json result = {{"type", InfoOf(type).name}, {"n", n}, {"weight_bytes", bytes}};
  for (int64_t rows : kRows) {
    args.rows = static_cast<int32_t>(rows);
    const double ms = Milliseconds([&](int copy) {
      args.w = weights + copy * bytes;
      CudaTable().matmul(args, 0, n / kPanelRows, nullptr);
    });
    result["rows"].push_back(RowFigures(rows, n, bytes, ms, limits));
  }
  for (const void* p : {static_cast<const void*>(weights), static_cast<const void*>(args.x.f32),
                        static_cast<const void*>(args.x.q), static_cast<const void*>(args.x.d),
                        static_cast<const void*>(args.x.bsum), static_cast<const void*>(args.y)}) {
    Check(cudaFree(const_cast<void*>(p)));
  }
  return result;
}

struct Options {
  bool only_limits = false;
  std::vector<std::string> types;  // none: all

  bool Wants(WeightType type) const {
    return types.empty() || std::find(types.begin(), types.end(), InfoOf(type).name) != types.end();
  }
};

// Whether there is a weight type of that name; tells those that there are if not.
bool IsKnown(const std::string& name) {
  std::string all;
  for (WeightType type : SupportedWeightTypes()) {
    if (name == InfoOf(type).name) return true;
    all += (all.empty() ? "" : ", ") + std::string(InfoOf(type).name);
  }
  std::fprintf(stderr, "gpu_bench: %s is no weight type; there are %s\n", name.c_str(),
               all.c_str());
  return false;
}

int Main(const Options& options) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return kNoDevice;
  }
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0));
  const Limits limits = {.copy = CopyBandwidth(),
                         .int8_peak = Peak(device.multiProcessorCount, StartInt8Products),
                         .f32_peak = Peak(device.multiProcessorCount, StartF32MultiplyAdds)};
  nlohmann::json json = {
      {"device", device.name},
      {"compute_capability", std::to_string(device.major) + "." + std::to_string(device.minor)},
      {"copy_gb_per_s", limits.copy},
      {"upload_gb_per_s", UploadBandwidth()},
      {"int8_peak_tera_multiplications_per_s", limits.int8_peak},
      {"f32_peak_tera_multiply_adds_per_s", limits.f32_peak},
      {"k", kK}};
  if (!options.only_limits) {
    for (WeightType type : SupportedWeightTypes()) {
      if (!options.Wants(type)) continue;
      json["types"].push_back(BenchType(type, limits));
      std::fprintf(stderr, "%s\n", json["types"].back().dump().c_str());
    }
    json["attention"] = BenchAttention(limits.f32_peak, limits.copy);
    json["rows"] = BenchRows();
  }
  std::printf("%s\n", json.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace dovetail::kernels

int main(int argc, char** argv) {
  dovetail::kernels::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--limits") {
      options.only_limits = true;
    } else if (word == "--profile") {
      dovetail::kernels::started_once = true;
    } else if (word.starts_with("-")) {
      std::fprintf(stderr, "usage: gpu_bench [--limits | --profile] [TYPE ...]\n");
      return 2;
    } else if (dovetail::kernels::IsKnown(word)) {
      options.types.push_back(word);
    } else {
      return 2;
    }
  }
  return dovetail::kernels::Main(options);
}
