#include "tests/gpu/attention_bench.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "base/kv_cache.h"
#include "kernels/cuda/cuda_table.h"
#include "kernels/kernel_table.h"
#include "tests/gpu/timing.h"

namespace dovetail::kernels {
namespace {

// A sequence with `position` tokens before the `rows` of the step.
struct Case {
  const char* shape;
  KvShape kv;
  int32_t heads;
  int32_t position, rows;
};

// Grouped heads of two sizes: whole prompts, and a chunk far behind the beginning; the latent
// layout of DeepSeek-V3, of which a worker starts 64 rows at once. Then single rows.
const Case kCases[] = {
    {"32 heads of 128, 8 KV heads", {KvLayout::kHeads, 8, 128, 128}, 32, 0, 2048},
    {"32 heads of 128, 8 KV heads", {KvLayout::kHeads, 8, 128, 128}, 32, 7680, 512},
    {"64 heads of 64, 8 KV heads", {KvLayout::kHeads, 8, 64, 64}, 64, 0, 2048},
    {"128 heads of 576, latent", {KvLayout::kLatent, 1, 576, 512}, 128, 4032, 64},
    {"28 heads of 128, 4 KV heads", {KvLayout::kHeads, 4, 128, 128}, 28, 63, 1},
    {"32 heads of 128, 8 KV heads", {KvLayout::kHeads, 8, 128, 128}, 32, 1023, 1},
    {"32 heads of 128, 8 KV heads", {KvLayout::kHeads, 8, 128, 128}, 32, 32767, 1},
    {"128 heads of 576, latent", {KvLayout::kLatent, 1, 576, 512}, 128, 1023, 1},
    {"128 heads of 576, latent", {KvLayout::kLatent, 1, 576, 512}, 128, 8191, 1},
};

// Multiply-adds of scores and values.
double MultiplyAdds(const Case& c) {
  const double keys = c.rows * (c.position + (c.rows + 1) / 2.0);
  return keys * c.heads * (c.kv.key_dim + c.kv.value_dim);
}

double AttentionMilliseconds(const Case& c) {
  const int64_t block_bytes = KvBlockBytes(c.kv, KvType::kF16);
  std::vector<int32_t> blocks((c.position + c.rows + kKvBlockTokens - 1) / kKvBlockTokens);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  int32_t* const table = Uploaded(blocks);
  const std::vector<SequenceRows> sequences = {{0, c.rows, c.position, table}};
  SequenceRows* const sequence = Uploaded(sequences);
  auto* const cache = Allocate<uint8_t>(block_bytes * static_cast<int64_t>(blocks.size()));
  const int64_t q_stride = int64_t{c.heads} * c.kv.key_dim;
  const int64_t out_stride = int64_t{c.heads} * c.kv.value_dim;
  float* const q = Allocate<float>(c.rows * q_stride);
  float* const out = Allocate<float>(c.rows * out_stride);
  const int32_t heads_per_task = std::min(c.heads / c.kv.num_heads, 16);
  const AttentionArgs args = {.kv = {cache, block_bytes, KvType::kF16, c.kv},
                              .q = q,
                              .q_stride = q_stride,
                              .out = out,
                              .out_stride = out_stride,
                              .sequences = sequence,
                              .num_sequences = 1,
                              .num_heads = c.heads,
                              .heads_per_task = heads_per_task,
                              .scale = 1.0f};
  const int64_t tasks = int64_t{c.rows} * c.heads / heads_per_task;
  const auto once = [&](int /*copy*/) { CudaTable().attention(args, 0, tasks, nullptr); };
  // As workers do with contexts of several splits.
  AttentionArgs shared = args;
  shared.part_splits = (c.position + kKvSplitTokens) / kKvSplitTokens;
  shared.parts = Allocate<float>(c.heads * shared.part_splits * AttentionPartFloats(c.kv));
  const auto in_parts = [&](int /*copy*/) {
    CudaTable().attention_parts(shared, 0, tasks, 0, shared.part_splits, nullptr);
    CudaTable().attention_merge(shared, 0, tasks, nullptr);
  };
  const bool by_splits = c.rows == 1 && shared.part_splits > 1;
  const double ms = by_splits ? Milliseconds(in_parts) : Milliseconds(once);
  Check(cudaFree(shared.parts));
  for (void* p : {static_cast<void*>(table), static_cast<void*>(sequence),
                  static_cast<void*>(cache), static_cast<void*>(q), static_cast<void*>(out)}) {
    Check(cudaFree(p));
  }
  return ms;
}

}  // namespace

nlohmann::json BenchAttention(double f32_peak, double copy) {
  nlohmann::json result = nlohmann::json::array();
  for (const Case& c : kCases) {
    const double ms = AttentionMilliseconds(c);
    const double tera = MultiplyAdds(c) / ms / 1e9;
    const double bytes = static_cast<double>(c.position + c.rows) / kKvBlockTokens *
                         static_cast<double>(KvBlockBytes(c.kv, KvType::kF16));
    result.push_back({{"shape", c.shape},
                      {"rows", c.rows},
                      {"position", c.position},
                      {"ms", ms},
                      {"tera_multiply_adds_per_s", tera},
                      {"share_of_f32_peak", tera / f32_peak},
                      {"cache_gb_per_s", bytes / ms / 1e6},
                      {"share_of_copy", bytes / ms / 1e6 / copy}});
    std::fprintf(stderr, "%s\n", result.back().dump().c_str());
  }
  return result;
}

}  // namespace dovetail::kernels
