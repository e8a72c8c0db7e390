// Attention over a cache, and what fills it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/posix.h"
#include "kernels/kernel_table.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/kernels_bench.h"

namespace dovetail::kernels {
namespace {

using benchmark::Counter;

struct HeadShape {
  const char* name;
  int heads;
  KvShape kv;
};
// SmolLM2-135M, Qwen2.5 1.5b and 7b, Llama 3, Qwen3 30b, GLM-4.5, Qwen3 235b; then DeepSeek-V2-Lite
// and V3, whose heads all read one latent vector of 512 and 64 elements.
constexpr HeadShape kHeadShapes[] = {
    {"9x3x64", 9, {KvLayout::kHeads, 3, 64, 64}},
    {"12x2x128", 12, {KvLayout::kHeads, 2, 128, 128}},
    {"28x4x128", 28, {KvLayout::kHeads, 4, 128, 128}},
    {"32x8x128", 32, {KvLayout::kHeads, 8, 128, 128}},
    {"32x4x128", 32, {KvLayout::kHeads, 4, 128, 128}},
    {"96x8x128", 96, {KvLayout::kHeads, 8, 128, 128}},
    {"64x4x128", 64, {KvLayout::kHeads, 4, 128, 128}},
    {"latent16x576", 16, {KvLayout::kLatent, 1, 576, 512}},
    {"latent128x576", 128, {KvLayout::kLatent, 1, 576, 512}},
};

// Where a worker would have them: in its workspace, at whole cache lines.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t count, float value = 0.0f)
      : memory_(*MemoryMap::MapHuge(static_cast<uint64_t>(count) * sizeof(float))) {
    std::fill_n(data(), count, value);
  }
  float* data() const { return reinterpret_cast<float*>(memory_.data()); }

 private:
  MemoryMap memory_;
};

// `rows` tokens after `position` others, one layer. A decode's caches are many enough that they do
// not come from the processor's. share: of the read bandwidth; peak_share: of the float products.
void Attention(benchmark::State& state, const KernelTable* table, KvType type, HeadShape heads) {
  const int32_t rows = static_cast<int32_t>(state.range(0));
  const int32_t position = static_cast<int32_t>(state.range(1));
  const int32_t num_blocks = (position + rows + 31) / 32;
  const KvShape& shape = heads.kv;
  const int64_t block_bytes = KvBlockBytes(shape, type);
  const int64_t bytes = block_bytes * num_blocks;
  const int64_t count = rows == 1 ? 1 + (int64_t{512} << 20) / bytes : 1;
  const MemoryMap cache = *MemoryMap::MapHuge(static_cast<uint64_t>(bytes * count));  // as a worker
  std::memset(cache.data(), 0x11, cache.size());
  std::vector<int32_t> blocks(num_blocks * count);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  const AlignedFloats q(int64_t{rows} * heads.heads * shape.key_dim, 0.1f);
  const AlignedFloats out(int64_t{rows} * heads.heads * shape.value_dim);
  const AlignedFloats scratch(AttentionScratchFloats(shape));
  SequenceRows sequence = {0, rows, position, blocks.data()};
  const AttentionArgs args = {.kv = {cache.data(), block_bytes, type, shape, num_blocks * count},
                              .q = q.data(),
                              .q_stride = heads.heads * shape.key_dim,
                              .out = out.data(),
                              .out_stride = heads.heads * shape.value_dim,
                              .sequences = &sequence,
                              .num_sequences = 1,
                              .num_heads = heads.heads,
                              .heads_per_task = heads.heads / shape.num_heads,
                              .scale = 0.125f,
                              .scratch = scratch.data()};
  int64_t i = 0;
  for (auto _ : state) {
    sequence.blocks = blocks.data() + i * num_blocks;
    table->attention(args, 0, int64_t{rows} * shape.num_heads);
    benchmark::ClobberMemory();
    i = (i + 1) % count;
  }
  const double iterations = static_cast<double>(state.iterations());
  double keys = 0;
  for (int r = 0; r < rows; ++r) keys += position + r + 1;
  const double products = iterations * keys * heads.heads * (shape.key_dim + shape.value_dim);
  const double read = iterations * static_cast<double>(bytes);
  state.counters["GMAC/s"] = Counter(products / 1e9, Counter::kIsRate);
  state.counters["peak_share"] = Counter(products / FloatProducts(table->isa), Counter::kIsRate);
  if (rows == 1) {
    state.counters["GB/s"] = Counter(read / 1e9, Counter::kIsRate);
    state.counters["share"] = Counter(read / ReadBandwidth(), Counter::kIsRate);
  }
}

// 64 tokens of one sequence.
void KvAppend(benchmark::State& state, const KernelTable* table, KvType type, HeadShape heads) {
  constexpr int32_t kRows = 64;
  const int64_t block_bytes = KvBlockBytes(heads.kv, type);
  const int32_t num_blocks = kRows / kKvBlockTokens;
  std::vector<uint8_t> cache(block_bytes * num_blocks);
  std::vector<int32_t> blocks(num_blocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  const int64_t k_stride = int64_t{heads.kv.num_heads} * heads.kv.key_dim;
  const int64_t v_stride = int64_t{heads.kv.num_heads} * heads.kv.value_dim;
  const std::vector<float> k(kRows * k_stride, 0.1f), v(kRows * v_stride, 0.1f);
  const SequenceRows sequence = {0, kRows, 0, blocks.data()};
  const KvAppendArgs args = {{cache.data(), block_bytes, type, heads.kv, num_blocks},
                             k.data(),
                             k_stride,
                             v.data(),
                             v_stride,
                             &sequence,
                             1};
  for (auto _ : state) benchmark::DoNotOptimize(table->kv_append(args, 0, kRows));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(cache.size()));
}

}  // namespace

void RegisterAttention(const KernelTable* table) {
  for (KvType type : kKvTypes) {
    for (const HeadShape& heads : kHeadShapes) {
      const std::string what = absl::StrCat(KvTypeName(type), "/", heads.name);
      benchmark::RegisterBenchmark(BenchName(table, "attention", what).c_str(),
                                   [=](benchmark::State& s) { Attention(s, table, type, heads); })
          ->Args({512, 0})
          ->Args({1, 511})
          ->Args({1, 4095})
          ->Args({1, 32767})
          ->ArgNames({"rows", "position"});
      benchmark::RegisterBenchmark(BenchName(table, "kv_append", what).c_str(),
                                   [=](benchmark::State& s) { KvAppend(s, table, type, heads); });
    }
  }
}

}  // namespace dovetail::kernels
