// BenchRows: how long a GPU takes for ops that are latency alone when there are few rows.
#ifndef DOVETAIL_TESTS_GPU_ROWS_BENCH_H_
#define DOVETAIL_TESTS_GPU_ROWS_BENCH_H_

#include <nlohmann/json.hpp>

namespace dovetail::kernels {

// An object for each op: its name, its rows, and the microseconds of one launch of several that
// follow each other, with what a launch takes.
nlohmann::json BenchRows();

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_GPU_ROWS_BENCH_H_
