// Attention as GPU workers start it. What all kernels share is attention_test's.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "base/kv_cache.h"
#include "gmock/gmock.h"
#include "tests/testing/device_under_test.h"
#include "tests/testing/test_data.h"

namespace dovetail::worker {
namespace {

using kernels::testing::DeviceUnderTest;
using kernels::testing::RunOnDevice;

using Rng = std::mt19937_64;

std::vector<float> Normal(Rng& rng, int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(rng);
  return values;
}

// A prompt of one sequence whose cache holds `k` and `v`, for all heads of one KV head.
std::vector<float> AttendPrompt(const std::vector<float>& q, const std::vector<float>& k,
                                const std::vector<float>& v, int tokens, int dim, int window) {
  const KvShape shape = {KvLayout::kHeads, 1, dim, dim};
  const int64_t block_bytes = KvBlockBytes(shape, KvType::kF32);
  std::vector<int32_t> blocks((tokens + kKvBlockTokens - 1) / kKvBlockTokens);
  std::iota(blocks.rbegin(), blocks.rend(), 0);
  std::vector<uint8_t> cache(block_bytes * blocks.size());
  const kernels::KvCacheView view = {cache.data(), block_bytes, KvType::kF32, shape};
  const kernels::SequenceRows sequence = {0, tokens, 0, blocks.data()};
  const auto heads = static_cast<int32_t>(q.size() / k.size());
  std::vector<float> out(q.size());
  RunOnDevice([&](void* stream) {
    int32_t not_finite = 0;
    DeviceUnderTest().kv_append({view, k.data(), dim, v.data(), dim, &sequence, 1}, 0, tokens,
                                &not_finite, stream);
  });
  RunOnDevice([&](void* stream) {
    DeviceUnderTest().attention({.kv = view,
                                 .q = q.data(),
                                 .q_stride = heads * dim,
                                 .out = out.data(),
                                 .out_stride = heads * dim,
                                 .sequences = &sequence,
                                 .num_sequences = 1,
                                 .num_heads = heads,
                                 .heads_per_task = heads,
                                 .scale = 0.125f,
                                 .window = window},
                                0, tokens, stream);
  });
  return out;
}

// Tokens whose key and value are not numbers change no bit of rows that do not see them: those
// before them, and those whose window they have left. With four heads rows are tiles, with one
// alone.
TEST(DeviceAttention, UnseenTokensTakeNoPart) {
  constexpr int kTokens = 64, kWindow = 24, kDim = 36;
  Rng rng(dovetail::testing::TestSeed());
  for (const int heads : {1, 4}) {
    const int tokens = heads == 1 ? 15 : kTokens;
    const std::vector<float> q = Normal(rng, int64_t{tokens} * heads * kDim);
    std::vector<float> k = Normal(rng, tokens * kDim), v = Normal(rng, tokens * kDim);
    const std::vector<float> expected = AttendPrompt(q, k, v, tokens, kDim, kWindow);
    const int poisoned[] = {3, tokens - 4};
    for (const int token : poisoned) {
      std::fill_n(&k[token * kDim], kDim, std::numeric_limits<float>::quiet_NaN());
      std::fill_n(&v[token * kDim], kDim, std::numeric_limits<float>::infinity());
    }
    const std::vector<float> actual = AttendPrompt(q, k, v, tokens, kDim, kWindow);
    const int64_t width = heads * kDim;
    for (int row = 0; row < tokens; ++row) {
      const bool sees = std::any_of(std::begin(poisoned), std::end(poisoned), [&](int token) {
        return token <= row && row < token + kWindow;
      });
      const bool same =
          std::memcmp(&expected[row * width], &actual[row * width], width * sizeof(float)) == 0;
      EXPECT_EQ(same, !sees) << heads << " heads, row " << row;
    }
  }
}

}  // namespace
}  // namespace dovetail::worker
