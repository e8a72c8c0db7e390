// KV cache and attention: every table against the scalar reference, the reference against f64, and
// independence of how rows are cut into steps.
#include "absl/strings/str_cat.h"
#include "kernels/kernel_table.h"
#include "kernels/ops.h"
#include "tests/testing/test_data.h"
#include "tests/unit/kernels/random_inputs.h"

namespace dovetail::kernels {
namespace {

using namespace testing;  // NOLINT: kernels' own test helpers

struct Shape {
  KvType type;
  int32_t num_heads, num_kv_heads, head_dim;
  int32_t window = 0;
  bool sinks = false;
};

// A cache with shuffled blocks, and a step over several sequences.
class Fixture {
 public:
  Fixture(Rng& rng, const Shape& shape, const std::vector<std::pair<int, int>>& sequences)
      : shape_(shape), rng_(&rng) {
    int num_blocks = 0;
    for (const auto& [position, rows] : sequences) num_blocks += (position + rows + 31) / 32;
    std::vector<int32_t> ids(num_blocks);
    for (int i = 0; i < num_blocks; ++i) ids[i] = i;
    std::shuffle(ids.begin(), ids.end(), rng);
    block_bytes_ = 2LL * shape.num_kv_heads * shape.head_dim * kKvBlockTokens *
                   (shape.type == KvType::kF32 ? 4 : 2);
    // Slots that no token has written hold NaN, which nobody may read into a result.
    cache_.assign(static_cast<size_t>(block_bytes_ * num_blocks), 0xff);
    int at = 0;
    for (const auto& [position, rows] : sequences) {
      tables_.emplace_back();
      for (int i = 0; i < (position + rows + 31) / 32; ++i) tables_.back().push_back(ids[at++]);
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      rows_.push_back({num_rows_, sequences[i].second, sequences[i].first, tables_[i].data()});
      num_rows_ += sequences[i].second;
    }
  }

  KvCacheView view() {
    return {cache_.data(), block_bytes_, shape_.type, shape_.num_kv_heads, shape_.head_dim};
  }
  int num_rows() const { return num_rows_; }
  int64_t q_width() const { return int64_t{shape_.num_heads} * shape_.head_dim; }
  int64_t kv_width() const { return int64_t{shape_.num_kv_heads} * shape_.head_dim; }
  const std::vector<SequenceRows>& rows() const { return rows_; }
  const std::vector<uint8_t>& cache() const { return cache_; }

  // Fills the tokens before each sequence's step, then the step itself, through `table`.
  void Append(const KernelTable& table, const std::vector<float>& k, const std::vector<float>& v,
              uint64_t history_seed) {
    Rng history(history_seed);
    for (const SequenceRows& s : rows_) {
      if (s.position == 0) continue;
      const std::vector<float> hk = Normals(history, s.position * kv_width());
      const std::vector<float> hv = Normals(history, s.position * kv_width());
      const SequenceRows past = {0, s.position, 0, s.blocks};
      table.kv_append({view(), hk.data(), kv_width(), hv.data(), kv_width(), &past, 1}, 0,
                      s.position);
    }
    const KvAppendArgs args = {view(),
                               k.data(),
                               kv_width(),
                               v.data(),
                               kv_width(),
                               rows_.data(),
                               static_cast<int32_t>(rows_.size())};
    ForRandomSlices(*rng_, num_rows_, [&](int64_t b, int64_t e) { table.kv_append(args, b, e); });
  }

  std::vector<float> Attend(const KernelTable& table, const std::vector<float>& q) {
    Guarded<float> out(num_rows_ * q_width());
    Guarded<float> scratch(
        AttentionScratchFloats(shape_.num_heads, shape_.num_kv_heads, shape_.head_dim));
    const AttentionArgs args = {view(),
                                q.data(),
                                q_width(),
                                out.data(),
                                q_width(),
                                rows_.data(),
                                static_cast<int32_t>(rows_.size()),
                                shape_.num_heads,
                                1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                                scratch.data(),
                                shape_.window,
                                shape_.sinks ? q.data() : nullptr};  // any numbers do
    ForRandomSlices(*rng_, int64_t{num_rows_} * shape_.num_kv_heads,
                    [&](int64_t b, int64_t e) { table.attention(args, b, e); });
    out.ExpectGuardsIntact();
    scratch.ExpectGuardsIntact();
    return {out.data(), out.data() + out.size()};
  }

  static std::vector<float> Normals(Rng& rng, int64_t n) {
    std::vector<float> v(n);
    for (float& f : v) f = Normal(rng);
    return v;
  }

 private:
  Shape shape_;
  Rng* rng_;
  int64_t block_bytes_ = 0;
  std::vector<uint8_t> cache_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<SequenceRows> rows_;
  int num_rows_ = 0;
};

std::string Describe(const KernelTable& table, const Shape& s) {
  return absl::StrCat(table.name, s.type == KvType::kF16 ? " f16" : " f32", " heads=", s.num_heads,
                      "/", s.num_kv_heads, " dim=", s.head_dim, " window=", s.window,
                      s.sinks ? " sinks" : "");
}

const Shape kShapes[] = {
    {KvType::kF16, 9, 3, 64},
    {KvType::kF32, 9, 3, 64},
    {KvType::kF16, 8, 8, 80},
    {KvType::kF16, 14, 2, 48},
    {KvType::kF32, 4, 1, 20},
    {KvType::kF16, 4, 2, 36},
    {KvType::kF32, 2, 2, 128},
    {KvType::kF16, 64, 1, 16},
    {KvType::kF16, 9, 3, 64, 1},
    {KvType::kF32, 4, 2, 64, 32},
    {KvType::kF16, 8, 1, 64, 33, true},
    {KvType::kF32, 4, 1, 20, 128, true},
    {KvType::kF16, 64, 1, 16, 300, true},
    {KvType::kF16, 4, 4, 36, 10000, true},
};

TEST(AttentionTest, EveryTableGivesTheReferenceBytes) {
  const uint64_t seed = dovetail::testing::TestSeed();
  Rng rng(seed);
  for (const Shape& shape : kShapes) {
    for (int trial = 0; trial < 4; ++trial) {
      std::vector<std::pair<int, int>> sequences;
      const int count = static_cast<int>(Uniform(rng, 1, 4));
      for (int i = 0; i < count; ++i) {
        sequences.emplace_back(Uniform(rng, 0, trial == 0 ? 40 : 600), Uniform(rng, 1, 40));
      }
      Fixture reference(rng, shape, sequences);
      const auto k = Fixture::Normals(rng, reference.num_rows() * reference.kv_width());
      const auto v = RandomFloats(rng, reference.num_rows() * reference.kv_width());
      const auto q = Fixture::Normals(rng, reference.num_rows() * reference.q_width());
      Fixture copy = reference;
      reference.Append(*FindTable(Isa::kScalar), k, v, seed + trial);
      const auto expected = reference.Attend(*FindTable(Isa::kScalar), q);
      for (float f : expected) ASSERT_TRUE(std::isfinite(f)) << "an unwritten slot was read";
      for (const KernelTable* table : AvailableTables()) {
        Fixture other = copy;
        other.Append(*table, k, v, seed + trial);
        ASSERT_EQ(reference.cache(), other.cache()) << Describe(*table, shape);
        const auto actual = other.Attend(*table, q);
        ExpectSameBits(expected.data(), actual.data(), static_cast<int64_t>(expected.size()),
                       Describe(*table, shape));
        if (HasFatalFailure()) return;
      }
    }
  }
}

void ExpectCloseToF64(const Shape& shape) {
  Rng rng(dovetail::testing::TestSeed());
  Fixture f(rng, shape, {{0, 700}});
  const auto k = Fixture::Normals(rng, 700 * 32), v = Fixture::Normals(rng, 700 * 32);
  const auto q = Fixture::Normals(rng, 700 * 64);
  f.Append(*FindTable(Isa::kScalar), k, v, 0);
  const auto out = f.Attend(*FindTable(Isa::kScalar), q);
  for (int row : {0, 1, 31, 32, 255, 256, 257, 511, 699}) {
    for (int head = 0; head < 2; ++head) {
      std::vector<double> p(row + 1);
      const int first = shape.window == 0 ? 0 : std::max(0, row + 1 - shape.window);
      const double sink = q[head];
      double max = shape.sinks ? sink : -INFINITY;
      double l = 0;
      for (int j = first; j <= row; ++j) {
        for (int d = 0; d < 32; ++d) p[j] += double{q[row * 64 + head * 32 + d]} * k[j * 32 + d];
        p[j] /= std::sqrt(32.0);
        max = std::max(max, p[j]);
      }
      if (shape.sinks) l = std::exp(sink - max);
      for (int j = first; j <= row; ++j) l += p[j] = std::exp(p[j] - max);
      for (int d = 0; d < 32; ++d) {
        double expected = 0;
        for (int j = first; j <= row; ++j) expected += p[j] / l * v[j * 32 + d];
        EXPECT_NEAR(out[row * 64 + head * 32 + d], expected, 2e-6) << row << " " << d;
      }
    }
  }
}

TEST(AttentionTest, ReferenceIsCloseToF64) {
  ExpectCloseToF64({KvType::kF32, 2, 1, 32});
  ExpectCloseToF64({KvType::kF32, 2, 1, 32, 1});
  ExpectCloseToF64({KvType::kF32, 2, 1, 32, 200, true});
  ExpectCloseToF64({KvType::kF32, 2, 1, 32, 300});
  ExpectCloseToF64({KvType::kF32, 2, 1, 32, 0, true});
}

// The same tokens as one prefill, in chunks, and one by one.
TEST(AttentionTest, ChunksDoNotChangeBits) {
  Rng rng(dovetail::testing::TestSeed());
  const Shape shape = {KvType::kF16, 6, 2, 64};
  const int tokens = 300;
  const auto k = Fixture::Normals(rng, tokens * 128), v = Fixture::Normals(rng, tokens * 128);
  const auto q = Fixture::Normals(rng, tokens * 384);
  const std::vector<int32_t> blocks = {3, 0, 7, 1, 9, 2, 8, 4, 6, 5};
  const int64_t block_bytes = 2LL * 2 * 64 * 32 * 2;
  std::vector<std::vector<float>> results;
  for (int window : {0, 40}) {
    results.clear();
    for (const KernelTable* table : AvailableTables()) {
      for (int chunk : {300, 1, 7, 64}) {
        std::vector<uint8_t> cache(block_bytes * 10, 0xff);
        const KvCacheView view = {cache.data(), block_bytes, shape.type, 2, 64};
        std::vector<float> out(tokens * 384), scratch(AttentionScratchFloats(6, 2, 64));
        for (int at = 0; at < tokens; at += chunk) {
          const int rows = std::min(chunk, tokens - at);
          const SequenceRows s = {0, rows, at, blocks.data()};
          table->kv_append({view, &k[at * 128], 128, &v[at * 128], 128, &s, 1}, 0, rows);
          table->attention({view, &q[at * 384], 384, &out[at * 384], 384, &s, 1, 6, 0.125f,
                            scratch.data(), window, q.data()},
                           0, rows * 2);
        }
        results.push_back(out);
        ExpectSameBits(results[0].data(), out.data(), static_cast<int64_t>(out.size()),
                       absl::StrCat(table->name, " chunk=", chunk, " window=", window));
      }
    }
  }
}

}  // namespace
}  // namespace dovetail::kernels
