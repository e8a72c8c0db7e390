// Speed of each kernel on one thread: GMAC/s are multiply-accumulates, GB/s what must be read.
//
// "share" is the achieved part of what one thread of this machine can do in the same run: of its
// read bandwidth where one token is computed, of its 8-bit products (float products for float
// weights and attention) where there are more; a kernel that only moves numbers has bytes a second.
// Run with --benchmark_filter=Q4_1 and the like.
#include "tests/bench/kernels_bench.h"

#include <benchmark/benchmark.h>

#include "kernels/kernel_table.h"
#include "tests/bench/ceilings.h"

namespace dovetail::kernels {
namespace {

void ReadStream(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(ReadBandwidth());
  state.counters["GB/s"] = ReadBandwidth() / 1e9;
}

const bool kRegistered = [] {
  benchmark::RegisterBenchmark("read_stream", ReadStream)->Iterations(1);
  for (const KernelTable* table : AvailableTables()) {
    if (table->isa == Isa::kScalar) continue;
    RegisterProducts(table);
    RegisterAttention(table);
    RegisterElementwise(table);
  }
  return true;
}();

}  // namespace
}  // namespace dovetail::kernels
