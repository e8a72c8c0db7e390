// The parts of kernels_bench: each registers its benchmarks of one table's kernels.
#ifndef DOVETAIL_TESTS_BENCH_KERNELS_BENCH_H_
#define DOVETAIL_TESTS_BENCH_KERNELS_BENCH_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/table.h"

namespace dovetail::kernels {

void RegisterProducts(const KernelTable* table);
void RegisterAttention(const KernelTable* table);
void RegisterElementwise(const KernelTable* table);

inline std::string BenchName(const KernelTable* table, absl::string_view op,
                             absl::string_view what = "") {
  return absl::StrCat(table->name, "/", op, what.empty() ? "" : "/", what);
}

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_BENCH_KERNELS_BENCH_H_
