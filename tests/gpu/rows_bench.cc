#include "tests/gpu/rows_bench.h"

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "base/kv_cache.h"
#include "kernels/cuda/cuda_table.h"
#include "kernels/kernel_table.h"
#include "tests/gpu/timing.h"

namespace dovetail::kernels {
namespace {

constexpr int64_t kMostRows = 32;
constexpr int32_t kHidden = 3584, kInner = 18944, kVocab = 152064;  // Qwen2.5-7B's
constexpr int32_t kExperts = 256, kUsed = 8;                        // DeepSeek-V3's
constexpr int32_t kHeads = 28, kHeadDim = 128;
constexpr KvShape kShape = {KvLayout::kHeads, 4, kHeadDim, kHeadDim};

// Rows of f32, and room for their form of blocks of 256.
Activations Rows(int32_t cols) {
  return {Allocate<float>(kMostRows * cols),
          cols,
          Allocate<int8_t>(kMostRows * cols),
          cols,
          Allocate<float>(kMostRows * cols / 256),
          cols / 256,
          Allocate<int16_t>(kMostRows * cols / 16),
          cols / 16,
          cols,
          256};
}
float* Values(const Activations& x) { return const_cast<float*>(x.f32); }

struct Op {
  std::string name;
  std::function<void(int64_t rows)> start;
};

// What all ops work on stays allocated: the program ends when they are done.
std::vector<Op> Ops() {
  const DeviceTable& table = CudaTable();
  const Activations x = Rows(kHidden), y = Rows(kHidden), gate = Rows(kInner), up = Rows(kInner);
  const RmsNormArgs norm = {x.f32, kHidden, Allocate<float>(kHidden), Values(y), kHidden, kHidden,
                            1e-6f, false};
  const GatedArgs gated = {gate.f32, up.f32, kInner, Values(gate), kInner, kInner};
  // Every row is a sequence, and has a block of the cache.
  std::vector<SequenceRows> sequences;
  std::vector<int32_t> blocks(kMostRows);
  for (int32_t i = 0; i < kMostRows; ++i) blocks[static_cast<size_t>(i)] = i;
  const int32_t* const ids = Uploaded(blocks);
  for (int32_t i = 0; i < kMostRows; ++i) sequences.push_back({i, 1, 3, ids + i});
  const RopeArgs rope = {
      Values(x), kHidden, Allocate<float>(kMostRows * kHeadDim), kHeads, kHeadDim, kHeadDim, false};
  RopeArgs rope_k = rope;
  rope_k.x = Values(y);
  rope_k.num_heads = kShape.num_heads;
  const int64_t block_bytes = KvBlockBytes(kShape, KvType::kF16);
  const KvAppendArgs append = {
      {Allocate<uint8_t>(kMostRows * block_bytes), block_bytes, KvType::kF16, kShape},
      y.f32,
      kHidden,
      y.f32,
      kHidden,
      Uploaded(sequences),
      static_cast<int32_t>(kMostRows)};
  const RouterArgs router = {.logits = Allocate<float>(kMostRows * kExperts),
                             .choice_bias = Allocate<float>(kExperts),
                             .count = kExperts,
                             .num_used = kUsed,
                             .score = RouterArgs::Score::kSigmoid,
                             .normalise = true,
                             .scale = 2.5f,
                             .num_groups = 8,
                             .groups_used = 4,
                             .group_max = false,
                             .experts = Allocate<int32_t>(kMostRows * kUsed),
                             .weights = Allocate<float>(kMostRows * kUsed),
                             .slots = kUsed,
                             .gate = nullptr};
  const float* const logits = Allocate<float>(kMostRows * kVocab);
  int32_t* const best = Allocate<int32_t>(kMostRows);
  int32_t* const flag = Allocate<int32_t>(1);
  return {
      {"norm and form of 3584",
       [=, &table](int64_t rows) { table.rms_norm_quantize(norm, y, 0, rows, nullptr); }},
      {"form of 3584", [=, &table](int64_t rows) { table.quantize({x}, 0, rows, nullptr); }},
      {"silu and form of 18944",
       [=, &table](int64_t rows) { table.silu_mul_quantize(gated, gate, 0, rows, nullptr); }},
      {"rope of 28 and 4 heads, append",
       [=, &table](int64_t rows) {
         table.rope_append(rope, rope_k, append, 0, rows, flag, nullptr);
       }},
      {"8 of 256 experts", [=, &table](int64_t rows) { table.router(router, 0, rows, nullptr); }},
      {"best of 152064",
       [=, &table](int64_t rows) { table.argmax(logits, kVocab, rows, kVocab, best, nullptr); }},
  };
}

}  // namespace

nlohmann::json BenchRows() {
  nlohmann::json result = nlohmann::json::array();
  for (const Op& op : Ops()) {
    for (int64_t rows : {int64_t{1}, kMostRows}) {
      const double ms = Milliseconds([&](int /*copy*/) { op.start(rows); });
      result.push_back({{"op", op.name}, {"rows", rows}, {"us", 1e3 * ms}});
      std::fprintf(stderr, "%s\n", result.back().dump().c_str());
    }
  }
  return result;
}

}  // namespace dovetail::kernels
