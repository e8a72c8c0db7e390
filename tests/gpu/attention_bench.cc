#include "tests/gpu/attention_bench.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/kv_cache.h"
#include "kernels/cuda/cuda_table.h"
#include "tests/gpu/timing.h"

namespace dovetail::kernels {
namespace {

// A sequence with `position` tokens before the `rows` of the step.
struct Prompt {
  const char* shape;
  KvShape kv;
  int32_t heads;
  int32_t position, rows;
};

// Grouped heads of two sizes: whole prompts, and a chunk far behind the beginning; the latent
// layout of DeepSeek-V3, of which a worker starts 64 rows at once.
const Prompt kPrompts[] = {
    {"32 heads of 128, 8 KV heads", {KvLayout::kHeads, 8, 128, 128}, 32, 0, 2048},
    {"32 heads of 128, 8 KV heads", {KvLayout::kHeads, 8, 128, 128}, 32, 7680, 512},
    {"64 heads of 64, 8 KV heads", {KvLayout::kHeads, 8, 64, 64}, 64, 0, 2048},
    {"128 heads of 576, latent", {KvLayout::kLatent, 1, 576, 512}, 128, 4032, 64},
};

// Multiply-adds of scores and values.
double MultiplyAdds(const Prompt& prompt) {
  const double keys = prompt.rows * (prompt.position + (prompt.rows + 1) / 2.0);
  return keys * prompt.heads * (prompt.kv.key_dim + prompt.kv.value_dim);
}

template <typename T>
T* Uploaded(const std::vector<T>& from) {
  T* to = Allocate<T>(static_cast<int64_t>(from.size()));
  Check(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  return to;
}

double AttentionMilliseconds(const Prompt& prompt) {
  const int64_t block_bytes = KvBlockBytes(prompt.kv, KvType::kF16);
  std::vector<int32_t> blocks((prompt.position + prompt.rows + kKvBlockTokens - 1) /
                              kKvBlockTokens);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  int32_t* const table = Uploaded(blocks);
  const std::vector<SequenceRows> sequences = {{0, prompt.rows, prompt.position, table}};
  SequenceRows* const sequence = Uploaded(sequences);
  auto* const cache = Allocate<uint8_t>(block_bytes * static_cast<int64_t>(blocks.size()));
  const int64_t q_stride = int64_t{prompt.heads} * prompt.kv.key_dim;
  const int64_t out_stride = int64_t{prompt.heads} * prompt.kv.value_dim;
  float* const q = Allocate<float>(prompt.rows * q_stride);
  float* const out = Allocate<float>(prompt.rows * out_stride);
  const int32_t heads_per_task = std::min(prompt.heads / prompt.kv.num_heads, 16);
  const AttentionArgs args = {.kv = {cache, block_bytes, KvType::kF16, prompt.kv},
                              .q = q,
                              .q_stride = q_stride,
                              .out = out,
                              .out_stride = out_stride,
                              .sequences = sequence,
                              .num_sequences = 1,
                              .num_heads = prompt.heads,
                              .heads_per_task = heads_per_task,
                              .scale = 1.0f};
  const int64_t tasks = int64_t{prompt.rows} * prompt.heads / heads_per_task;
  const double ms =
      Milliseconds([&](int /*copy*/) { CudaTable().attention(args, 0, tasks, nullptr); });
  for (void* p : {static_cast<void*>(table), static_cast<void*>(sequence),
                  static_cast<void*>(cache), static_cast<void*>(q), static_cast<void*>(out)}) {
    Check(cudaFree(p));
  }
  return ms;
}

}  // namespace

nlohmann::json BenchAttention(double f32_peak) {
  nlohmann::json result = nlohmann::json::array();
  for (const Prompt& prompt : kPrompts) {
    const double ms = AttentionMilliseconds(prompt);
    const double tera = MultiplyAdds(prompt) / ms / 1e9;
    result.push_back({{"shape", prompt.shape},
                      {"rows", prompt.rows},
                      {"position", prompt.position},
                      {"ms", ms},
                      {"tera_multiply_adds_per_s", tera},
                      {"share_of_f32_peak", tera / f32_peak}});
  }
  return result;
}

}  // namespace dovetail::kernels
