// BenchAttention: how fast a GPU has the attention of prompts, beside the f32 multiply-adds that it
// makes in registers, and of single rows, beside what a copy on it reads and writes.
#ifndef DOVETAIL_TESTS_GPU_ATTENTION_BENCH_H_
#define DOVETAIL_TESTS_GPU_ATTENTION_BENCH_H_

#include <nlohmann/json.hpp>

namespace dovetail::kernels {

// f32_peak: 10^12 multiply-adds a second; copy: GB/s. An object for each of a few shapes.
nlohmann::json BenchAttention(double f32_peak, double copy);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_GPU_ATTENTION_BENCH_H_
