// Speed of each kernel on one thread: items are multiply-accumulates, bytes are what must be read.
//
// "share" is the achieved part of this machine's one-thread read bandwidth (decode) in the same
// run. Arguments: n / k / rows for products; items of embeddings are elements. Run with
// --benchmark_filter=Q4_1 and the like.
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/posix.h"
#include "base/thread_pool.h"
#include "kernels/bandwidth.h"
#include "kernels/kernel_table.h"

namespace dovetail::kernels {
namespace {

using benchmark::Counter;

double ReadBandwidth() {
  static const double gb_per_s = [] {
    ThreadPool pool(1, {});
    return MeasureReadBandwidth(&pool, int64_t{256} << 20);
  }();
  return gb_per_s;
}

// Matrices enough that consecutive ones do not come from the cache.
struct Weights {
  std::vector<uint8_t> bytes;
  int64_t matrix_bytes;
  int64_t count;
};

uint8_t* Aligned(std::vector<uint8_t>& v) {
  return v.data() + (64 - reinterpret_cast<uintptr_t>(v.data()) % 64) % 64;
}

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
  w.matrix_bytes = PackedBytes(table->layout, type, n, k);
  w.count = many ? 1 + (int64_t{128} << 20) / w.matrix_bytes : 1;
  w.bytes.resize(static_cast<size_t>(w.matrix_bytes * w.count + 64));
  const std::vector<uint8_t> stored = StoredWeights(type, n, k);
  uint8_t* first = Aligned(w.bytes);
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
  Weights w = MakeWeights(table, type, n, k, rows <= 16 && !whole);
  std::vector<float> x = NormalNumbers(rows * k), y(rows * n), d(rows * k / 16);
  std::vector<int8_t> q(rows * k);
  std::vector<int16_t> bsum(rows * k / 16);
  Activations a = {x.data(),    k,        q.data(),
                   k,           d.data(), block == 0 ? 0 : k / block,
                   bsum.data(), k / 16,   static_cast<int32_t>(k),
                   block};
  if (block != 0) table->quantize({a}, 0, rows);
  int64_t i = 0;
  for (auto _ : state) {
    if (whole && block != 0) table->quantize({a}, 0, rows);
    const MatmulArgs args = {Aligned(w.bytes) + i * w.matrix_bytes,
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
  state.counters["GMAC/s"] =
      Counter(iterations * static_cast<double>(n * k * rows) / 1e9, Counter::kIsRate);
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsRate);
  if (rows == 1 && !whole) {
    state.counters["share"] = Counter(bytes / 1e9 / ReadBandwidth(), Counter::kIsRate);
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

struct HeadShape {
  const char* name;
  int heads, kv_heads, dim;
};
constexpr HeadShape kHeadShapes[] = {{"9x3x64", 9, 3, 64}, {"12x2x128", 12, 2, 128}};

// `rows` tokens after `position` others, one layer. A decode's caches are many enough that they do
// not come from the processor's; its share is that of the one-thread read bandwidth.
void Attention(benchmark::State& state, const KernelTable* table, KvType type, HeadShape heads) {
  const int32_t rows = static_cast<int32_t>(state.range(0));
  const int32_t position = static_cast<int32_t>(state.range(1));
  const int32_t num_blocks = (position + rows + 31) / 32;
  const KvShape shape = {KvLayout::kHeads, heads.kv_heads, heads.dim, heads.dim};
  const int64_t block_bytes = KvBlockBytes(shape, type);
  const int64_t bytes = block_bytes * num_blocks;
  const int64_t count = rows == 1 ? 1 + (int64_t{512} << 20) / bytes : 1;
  const MemoryMap cache = *MemoryMap::MapHuge(static_cast<uint64_t>(bytes * count));  // as a worker
  std::memset(cache.data(), 0x11, cache.size());
  std::vector<int32_t> blocks(num_blocks * count);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  std::vector<float> q(rows * heads.heads * heads.dim, 0.1f), out(q.size());
  std::vector<float> scratch(AttentionScratchFloats(shape));
  SequenceRows sequence = {0, rows, position, blocks.data()};
  const AttentionArgs args = {.kv = {cache.data(), block_bytes, type, shape},
                              .q = q.data(),
                              .q_stride = heads.heads * heads.dim,
                              .out = out.data(),
                              .out_stride = heads.heads * heads.dim,
                              .sequences = &sequence,
                              .num_sequences = 1,
                              .num_heads = heads.heads,
                              .heads_per_task = heads.heads / heads.kv_heads,
                              .scale = 0.125f,
                              .scratch = scratch.data()};
  int64_t i = 0;
  for (auto _ : state) {
    sequence.blocks = blocks.data() + i * num_blocks;
    table->attention(args, 0, int64_t{rows} * heads.kv_heads);
    benchmark::DoNotOptimize(out.data());
    i = (i + 1) % count;
  }
  const double iterations = static_cast<double>(state.iterations());
  double keys = 0;
  for (int r = 0; r < rows; ++r) keys += position + r + 1;
  state.counters["GMAC/s"] =
      Counter(iterations * keys * heads.heads * heads.dim * 2 / 1e9, Counter::kIsRate);
  if (rows == 1) {
    const double gb = iterations * static_cast<double>(bytes) / 1e9;
    state.counters["GB/s"] = Counter(gb, Counter::kIsRate);
    state.counters["share"] = Counter(gb / ReadBandwidth(), Counter::kIsRate);
  }
}

void Quantize(benchmark::State& state, const KernelTable* table) {
  const int64_t rows = 64, cols = 1536;
  std::vector<float> x(rows * cols, 0.5f), d(rows * cols / 32);
  std::vector<int8_t> q(rows * cols);
  std::vector<int16_t> bsum(rows * cols / 16);
  const Activations a = {x.data(),  cols,        q.data(),  cols, d.data(),
                         cols / 32, bsum.data(), cols / 16, cols, 32};
  for (auto _ : state) {
    table->quantize({a}, 0, rows);
    benchmark::DoNotOptimize(q.data());
  }
  state.SetBytesProcessed(state.iterations() * rows * cols * 4);
}

void SiluMul(benchmark::State& state, const KernelTable* table) {
  std::vector<float> gate(64 * 1536, 0.5f), y(gate.size());
  for (auto _ : state) {
    table->silu_mul({gate.data(), gate.data(), 1536, y.data(), 1536, 1536}, 0, 64);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(gate.size()) * 4);
}

void RmsNorm(benchmark::State& state, const KernelTable* table) {
  std::vector<float> x(64 * 576, 0.5f), w(576, 1.0f), y(x.size());
  for (auto _ : state) {
    table->rms_norm({x.data(), 576, w.data(), y.data(), 576, 576, 1e-5f}, 0, 64);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.size()) * 4);
}

void Rope(benchmark::State& state, const KernelTable* table, bool interleaved) {
  std::vector<float> x(64 * 576, 0.5f), angles(64 * 64, 0.7071f);
  for (auto _ : state) {
    table->rope({x.data(), 576, angles.data(), 9, 64, 64, interleaved}, 0, 64);
    benchmark::DoNotOptimize(x.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.size()) * 4);
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

void ReadStream(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(ReadBandwidth());
  state.counters["GB/s"] = ReadBandwidth();
}

void RegisterFor(const KernelTable* table) {
  const auto name = [&](const char* op, absl::string_view what = "") {
    return absl::StrCat(table->name, "/", op, what.empty() ? "" : "/", what);
  };
  for (WeightType type : SupportedWeightTypes()) {
    auto* b =
        benchmark::RegisterBenchmark(name("matmul", InfoOf(type).name).c_str(),
                                     [=](benchmark::State& s) { Matmul(s, table, type, false); });
    for (int64_t rows : {1, 4, 8, 16, 64, 512}) b->Args({1536, 768, rows});
    b->UseRealTime()->ArgNames({"n", "k", "rows"});
    auto* product =
        benchmark::RegisterBenchmark(name("product", InfoOf(type).name).c_str(),
                                     [=](benchmark::State& s) { Matmul(s, table, type, true); });
    for (int64_t rows : {1, 8, 512}) product->Args({4096, 4096, rows});
    product->UseRealTime()->ArgNames({"n", "k", "rows"});
    for (bool packed : {false, true}) {
      if (packed && IsFloat(type)) continue;
      const char* op = packed ? "packed_embedding" : "embedding";
      auto* rows = benchmark::RegisterBenchmark(
          name(op, InfoOf(type).name).c_str(),
          [=](benchmark::State& s) { Embedding(s, table, type, packed); });
      rows->Arg(768)->Arg(4096)->ArgName("k");
    }
    if (!IsFloat(type)) {
      benchmark::RegisterBenchmark(name("pack", InfoOf(type).name).c_str(),
                                   [=](benchmark::State& s) { Pack(s, table, type); });
    }
  }
  for (KvType type : kKvTypes) {
    for (const HeadShape& heads : kHeadShapes) {
      benchmark::RegisterBenchmark(
          name("attention", absl::StrCat(KvTypeName(type), "/", heads.name)).c_str(),
          [=](benchmark::State& s) { Attention(s, table, type, heads); })
          ->Args({512, 0})
          ->Args({1, 511})
          ->Args({1, 4095})
          ->Args({1, 32767})
          ->ArgNames({"rows", "position"});
    }
  }
  benchmark::RegisterBenchmark(name("quantize").c_str(),
                               [=](benchmark::State& s) { Quantize(s, table); });
  benchmark::RegisterBenchmark(name("silu_mul").c_str(),
                               [=](benchmark::State& s) { SiluMul(s, table); });
  benchmark::RegisterBenchmark(name("rms_norm").c_str(),
                               [=](benchmark::State& s) { RmsNorm(s, table); });
  for (bool interleaved : {false, true}) {
    benchmark::RegisterBenchmark(name("rope", interleaved ? "interleaved" : "halves").c_str(),
                                 [=](benchmark::State& s) { Rope(s, table, interleaved); });
  }
}

const bool kRegistered = [] {
  benchmark::RegisterBenchmark("read_stream", ReadStream)->Iterations(1);
  for (const KernelTable* table : AvailableTables()) {
    if (table->isa != Isa::kScalar) RegisterFor(table);
  }
  return true;
}();

}  // namespace
}  // namespace dovetail::kernels
