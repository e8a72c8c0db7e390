// Attention as GPU workers start it. What all kernels share is attention_test's.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/kv_cache.h"
#include "gmock/gmock.h"
#include "kernels/kernel_table.h"
#include "tests/testing/device_under_test.h"
#include "tests/testing/random_values.h"
#include "tests/testing/test_data.h"
#include "worker/layers/attention_tasks.h"

namespace dovetail::worker {
namespace {

using kernels::testing::DeviceUnderTest;
using kernels::testing::RunOnDevice;

using testing::Normal;
using testing::Rng;
using testing::SameBits;

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

struct DecodeCase {
  KvType type;
  KvShape kv;
  int32_t heads;
  int32_t window = 0;
  bool sinks = false;
};

// Heads that share a KV head fill what a block has of them or do not, values take one pass or more;
// dims of which vectors of 16 bytes are made, and others.
const DecodeCase kDecodeCases[] = {
    {KvType::kF16, {KvLayout::kHeads, 2, 64, 64}, 14},
    {KvType::kF16, {KvLayout::kHeads, 1, 80, 80}, 1, 33, true},
    {KvType::kBF16, {KvLayout::kHeads, 2, 96, 96}, 4},
    {KvType::kF32, {KvLayout::kHeads, 2, 128, 128}, 6, 200},
    {KvType::kQ8_0, {KvLayout::kHeads, 1, 128, 128}, 8},
    {KvType::kF16, {KvLayout::kHeads, 1, 192, 128}, 3},
    {KvType::kF16, {KvLayout::kHeads, 1, 256, 256}, 16, 0, true},
    {KvType::kQ8_0, {KvLayout::kHeads, 2, 144, 176}, 10},
    {KvType::kBF16, {KvLayout::kHeads, 1, 36, 52}, 5},
    {KvType::kF16, {KvLayout::kLatent, 1, 576, 512}, 20},
    {KvType::kF32, {KvLayout::kLatent, 1, 96, 64}, 7, 100},
    {KvType::kBF16, {KvLayout::kLatent, 1, 320, 256}, 8, 0, true},
    {KvType::kQ8_0, {KvLayout::kLatent, 1, 144, 112}, 6},
    {KvType::kQ8_0, {KvLayout::kLatent, 1, 576, 512}, 4, 270},
};

// Rows of sequences whose caches are full of random numbers, and behind their last tokens of what
// is none.
class DecodeStep {
 public:
  DecodeStep(Rng& rng, const DecodeCase& c, const std::vector<int>& positions)
      : case_(c), rows_(static_cast<int64_t>(positions.size())) {
    int32_t num_blocks = 0;
    for (const int position : positions) num_blocks += position / kKvBlockTokens + 1;
    blocks_.resize(num_blocks);
    std::iota(blocks_.begin(), blocks_.end(), 0);
    std::shuffle(blocks_.begin(), blocks_.end(), rng);
    cache_.assign(KvBlockBytes(c.kv, c.type) * num_blocks, 0xff);
    const int32_t* table = blocks_.data();
    for (const int position : positions) {
      sequences_.push_back({static_cast<int32_t>(sequences_.size()), 1, position, table});
      Fill(rng, position + 1, table);
      table += position / kKvBlockTokens + 1;
      splits_ = std::max<int64_t>(splits_, position / kKvSplitTokens + 1);
    }
    q_ = Normal(rng, rows_ * c.heads * c.kv.key_dim);
    scratch_.resize(kernels::AttentionScratchFloats(c.kv));
  }

  // What a processor gives.
  std::vector<float> Expected() {
    std::vector<float> out(rows_ * case_.heads * case_.kv.value_dim);
    const kernels::AttentionArgs args = Args(&out);
    Scalar().attention(args, 0, Tasks(args));
    return out;
  }
  std::vector<float> Whole() {
    std::vector<float> out(rows_ * case_.heads * case_.kv.value_dim);
    const kernels::AttentionArgs args = Args(&out);
    RunOnDevice([&](void* stream) { DeviceUnderTest().attention(args, 0, Tasks(args), stream); });
    return out;
  }
  std::vector<float> InParts() {
    std::vector<float> out(rows_ * case_.heads * case_.kv.value_dim);
    kernels::AttentionArgs args = Args(&out);
    std::vector<float> parts(rows_ * case_.heads * splits_ *
                             kernels::AttentionPartFloats(case_.kv));
    args.parts = parts.data();
    args.part_splits = splits_;
    RunOnDevice([&](void* stream) {
      DeviceUnderTest().attention_parts(args, 0, Tasks(args), 0, splits_, stream);
      DeviceUnderTest().attention_merge(args, 0, Tasks(args), stream);
    });
    return out;
  }

 private:
  static const kernels::KernelTable& Scalar() { return *kernels::FindTable(kernels::Isa::kScalar); }
  kernels::KvCacheView View() {
    return {cache_.data(), KvBlockBytes(case_.kv, case_.type), case_.type, case_.kv};
  }
  void Fill(Rng& rng, int tokens, const int32_t* table) {
    const int64_t key_width = int64_t{case_.kv.num_heads} * case_.kv.key_dim;
    const int64_t value_width = int64_t{case_.kv.num_heads} * case_.kv.value_dim;
    const std::vector<float> k = Normal(rng, tokens * key_width);
    const std::vector<float> v = Normal(rng, tokens * value_width);
    const kernels::SequenceRows rows = {0, tokens, 0, table};
    EXPECT_TRUE(Scalar().kv_append({View(), k.data(), key_width, v.data(), value_width, &rows, 1},
                                   0, tokens));
  }
  kernels::AttentionArgs Args(std::vector<float>* out) {
    kernels::AttentionArgs args = {.kv = View(),
                                   .q = q_.data(),
                                   .q_stride = int64_t{case_.heads} * case_.kv.key_dim,
                                   .out = out->data(),
                                   .out_stride = int64_t{case_.heads} * case_.kv.value_dim,
                                   .sequences = sequences_.data(),
                                   .num_sequences = static_cast<int32_t>(sequences_.size()),
                                   .num_heads = case_.heads,
                                   .scale = 1.0f / std::sqrt(static_cast<float>(case_.kv.key_dim)),
                                   .scratch = scratch_.data(),
                                   .window = case_.window,
                                   .sinks = case_.sinks ? q_.data() : nullptr};  // any numbers do
    args.heads_per_task = HeadsPerTask(args);
    return args;
  }
  int64_t Tasks(const kernels::AttentionArgs& args) const {
    return rows_ * args.num_heads / args.heads_per_task;
  }

  DecodeCase case_;
  int64_t rows_;
  int64_t splits_ = 0;
  std::vector<int32_t> blocks_;
  std::vector<uint8_t> cache_;
  std::vector<kernels::SequenceRows> sequences_;
  std::vector<float> q_, scratch_;
};

void ExpectReferenceBytes(const std::vector<int>& positions) {
  Rng rng(dovetail::testing::TestSeed());
  for (const DecodeCase& c : kDecodeCases) {
    DecodeStep step(rng, c, positions);
    const std::vector<float> expected = step.Expected();
    const std::string what = std::string(KvTypeName(c.type)) + " heads " + std::to_string(c.heads) +
                             " dims " + std::to_string(c.kv.key_dim) + "/" +
                             std::to_string(c.kv.value_dim);
    EXPECT_TRUE(SameBits(expected, step.Whole())) << what;
    EXPECT_TRUE(SameBits(expected, step.InParts())) << what << " in parts";
  }
}

// Blocks have as few heads as they may.
TEST(DeviceAttention, SingleRowsHaveTheReferenceBytes) {
  for (const int position : {0, 63, 255, 701}) ExpectReferenceBytes({position});
}

// As many as they may, and more sequences than a warp has lanes.
TEST(DeviceAttention, ManyStreamsHaveTheReferenceBytes) {
  std::vector<int> positions;
  for (int i = 0; i < 40; ++i) positions.push_back(i == 17 ? 300 : i == 35 ? 540 : 3 * i % 71);
  ExpectReferenceBytes(positions);
}

// A merge of more splits than a block has threads, of random parts.
TEST(DeviceAttention, MergesManySplits) {
  constexpr int kSplits = 301, kHeads = 2;
  const KvShape shape = {KvLayout::kHeads, 1, 16, 200};
  Rng rng(dovetail::testing::TestSeed());
  std::vector<float> parts = Normal(rng, kHeads * kSplits * kernels::AttentionPartFloats(shape));
  const int64_t part_floats = kernels::AttentionPartFloats(shape);
  for (int64_t at = 0; at < kHeads * kSplits; ++at) {
    parts[at * part_floats + 1] = 1.0f + std::abs(parts[at * part_floats + 1]);  // l
  }
  const std::vector<float> sinks = Normal(rng, kHeads);
  std::vector<float> scratch(kernels::AttentionScratchFloats(shape));
  const kernels::SequenceRows sequence = {0, 1, kSplits * kKvSplitTokens - 7, nullptr};
  for (const int window : {0, 5000}) {
    std::vector<float> expected(kHeads * shape.value_dim), actual(expected.size());
    kernels::AttentionArgs args = {.kv = {nullptr, 0, KvType::kF32, shape},
                                   .out = expected.data(),
                                   .out_stride = static_cast<int64_t>(expected.size()),
                                   .sequences = &sequence,
                                   .num_sequences = 1,
                                   .num_heads = kHeads,
                                   .heads_per_task = kHeads,
                                   .scale = 1.0f,
                                   .scratch = scratch.data(),
                                   .window = window,
                                   .sinks = window > 0 ? sinks.data() : nullptr,
                                   .parts = parts.data(),
                                   .part_splits = kSplits};
    kernels::FindTable(kernels::Isa::kScalar)->attention_merge(args, 0, 1);
    args.out = actual.data();
    RunOnDevice([&](void* stream) { DeviceUnderTest().attention_merge(args, 0, 1, stream); });
    EXPECT_TRUE(SameBits(expected, actual)) << "window " << window;
  }
}

}  // namespace
}  // namespace dovetail::worker
