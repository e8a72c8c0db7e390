// Products with packed weights, packing, and rows of embeddings (their items are elements).
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <vector>

#include "base/posix.h"
#include "base/quantized_rows.h"
#include "kernels/kernel_table.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/kernels_bench.h"

namespace dovetail::kernels {
namespace {

using benchmark::Counter;

// Matrices enough that consecutive ones do not come from the cache, in huge pages as a worker's.
struct Weights {
  MemoryMap memory;
  int64_t matrix_bytes;
  int64_t count;
  const uint8_t* Matrix(int64_t i) const { return memory.data() + i * matrix_bytes; }
};

// A stored matrix of any bytes, but where halves and floats lie they are ordinary numbers.
std::vector<uint8_t> StoredWeights(WeightType type, int64_t n, int64_t k) {
  std::vector<uint8_t> bytes(static_cast<size_t>(n * StoredBytes(type, k) + 4));
  std::mt19937 rng(1);
  for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
    uint32_t v = (rng() & 0x03ff03ff) | 0x3c003c00;
    // MXFP4's exponents are bytes, and small ones would make subnormal sums, which are slow.
    if (type == WeightType::kMXFP4) v = (rng() & 0x0f0f0f0f) | 0x70707070;
    std::memcpy(&bytes[i], &v, 4);
  }
  return bytes;
}

Weights MakeWeights(const KernelTable* table, WeightType type, int64_t n, int64_t k, bool many) {
  Weights w;
  w.matrix_bytes = (PackedBytes(table->layout, type, n, k) + 63) / 64 * 64;
  w.count = many ? 1 + (int64_t{128} << 20) / w.matrix_bytes : 1;
  w.memory = *MemoryMap::MapHuge(static_cast<uint64_t>(w.matrix_bytes * w.count));
  const std::vector<uint8_t> stored = StoredWeights(type, n, k);
  uint8_t* first = w.memory.data();
  table->pack(type, stored.data(), n, k, 0, n, first);
  for (int64_t i = 1; i < w.count; ++i) {
    std::memcpy(first + i * w.matrix_bytes, first, static_cast<size_t>(w.matrix_bytes));
  }
  return w;
}

std::vector<float> NormalNumbers(int64_t count) {
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = normal(rng);
  return x;
}

// `whole`: with the quantisation of the activations, and one matrix alone.
void Matmul(benchmark::State& state, const KernelTable* table, WeightType type, bool whole) {
  const int64_t n = state.range(0), k = state.range(1), rows = state.range(2);
  const int32_t block = ActivationBlock(type);
  const Weights w = MakeWeights(table, type, n, k, rows <= 16 && !whole);
  std::vector<float> x = NormalNumbers(rows * k), y(rows * n), d(rows * k / 16);
  const int64_t q_stride = QuantizedRowBytes(k);
  const MemoryMap q = *MemoryMap::MapHuge(static_cast<uint64_t>(rows * q_stride));
  std::vector<int16_t> bsum(rows * k / 16);
  Activations a = {x.data(),    k,        reinterpret_cast<int8_t*>(q.data()),
                   q_stride,    d.data(), block == 0 ? 0 : k / block,
                   bsum.data(), k / 16,   static_cast<int32_t>(k),
                   block};
  if (block != 0) table->quantize({a}, 0, rows);
  int64_t i = 0;
  for (auto _ : state) {
    if (whole && block != 0) table->quantize({a}, 0, rows);
    const MatmulArgs args = {w.Matrix(i),
                             type,
                             static_cast<int32_t>(n),
                             static_cast<int32_t>(k),
                             a,
                             static_cast<int32_t>(rows),
                             y.data(),
                             n,
                             false};
    table->matmul(args, 0, (n + 15) / 16);
    benchmark::DoNotOptimize(y.data());
    i = (i + 1) % w.count;
  }
  const double iterations = static_cast<double>(state.iterations());
  const double bytes = iterations * static_cast<double>(w.matrix_bytes);
  const double products = iterations * static_cast<double>(n * k * rows);
  state.counters["GMAC/s"] = Counter(products / 1e9, Counter::kIsRate);
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsRate);
  const double peak = IsFloat(type) ? FloatProducts(table->isa) : Int8Products(table->isa);
  if (rows == 1 && !whole) {
    state.counters["share"] = Counter(bytes / ReadBandwidth(), Counter::kIsRate);
  } else if (rows > 1 && peak > 0) {
    state.counters["share"] = Counter(products / peak, Counter::kIsRate);
  }
}

// A prompt's rows of a table that no cache holds, as the file has it or `packed`.
void Embedding(benchmark::State& state, const KernelTable* table, WeightType type, bool packed) {
  const int32_t cols = static_cast<int32_t>(state.range(0));
  constexpr int64_t kVocab = 32768, kRows = 512;
  std::vector<uint8_t> stored = StoredWeights(type, kVocab, cols);
  if (packed) {
    std::vector<uint8_t> panels(
        static_cast<size_t>(PackedBytes(table->layout, type, kVocab, cols)));
    table->pack(type, stored.data(), kVocab, cols, 0, kVocab, panels.data());
    stored.swap(panels);
  }
  std::mt19937 rng(3);
  std::vector<int32_t> tokens(kRows);
  std::vector<float> y(kRows * cols);
  const EmbeddingArgs args = {stored.data(), type, StoredBytes(type, cols), tokens.data(), y.data(),
                              cols,          cols};
  for (auto _ : state) {
    state.PauseTiming();
    for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % kVocab);
    state.ResumeTiming();
    (packed ? table->packed_embedding : table->embedding)(args, 0, kRows);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetItemsProcessed(state.iterations() * kRows * cols);
}

void Pack(benchmark::State& state, const KernelTable* table, WeightType type) {
  const int64_t n = 1024, k = 1024;
  std::vector<uint8_t> src(n * StoredBytes(type, k)), dst(PackedBytes(table->layout, type, n, k));
  for (auto _ : state) {
    table->pack(type, src.data(), n, k, 0, n, dst.data());
    benchmark::DoNotOptimize(dst.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(src.size()));
}

}  // namespace

void RegisterProducts(const KernelTable* table) {
  for (WeightType type : SupportedWeightTypes()) {
    auto* matmul =
        benchmark::RegisterBenchmark(BenchName(table, "matmul", InfoOf(type).name).c_str(),
                                     [=](benchmark::State& s) { Matmul(s, table, type, false); });
    for (int64_t rows : {1, 4, 8, 16, 64, 512}) matmul->Args({1536, 768, rows});
    // As large as a feed-forward block's, whose activations leave the first-level cache.
    for (int64_t rows : {8, 16, 512}) matmul->Args({1536, 8960, rows});
    matmul->UseRealTime()->ArgNames({"n", "k", "rows"});
    auto* product =
        benchmark::RegisterBenchmark(BenchName(table, "product", InfoOf(type).name).c_str(),
                                     [=](benchmark::State& s) { Matmul(s, table, type, true); });
    for (int64_t rows : {1, 8, 512}) product->Args({4096, 4096, rows});
    product->UseRealTime()->ArgNames({"n", "k", "rows"});
    for (bool packed : {false, true}) {
      if (packed && IsFloat(type)) continue;
      const char* op = packed ? "packed_embedding" : "embedding";
      auto* rows = benchmark::RegisterBenchmark(
          BenchName(table, op, InfoOf(type).name).c_str(),
          [=](benchmark::State& s) { Embedding(s, table, type, packed); });
      rows->Arg(768)->Arg(4096)->ArgName("k");
    }
    if (!IsFloat(type)) {
      benchmark::RegisterBenchmark(BenchName(table, "pack", InfoOf(type).name).c_str(),
                                   [=](benchmark::State& s) { Pack(s, table, type); });
    }
  }
}

}  // namespace dovetail::kernels
