// KV cache and attention: every table against the scalar reference, the reference against f64, and
// independence of how rows are cut into steps.
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/kernel_table.h"
#include "kernels/ops.h"
#include "tests/testing/kernel_tables.h"
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
  int32_t value_dim = 0;  // 0: head_dim; otherwise one latent vector per token, of which so many
                          // elements are the value

  KvShape kv() const {
    if (value_dim == 0) return {KvLayout::kHeads, num_kv_heads, head_dim, head_dim};
    return {KvLayout::kLatent, 1, head_dim, value_dim};
  }
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
    block_bytes_ = KvBlockBytes(shape.kv(), shape.type);
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

  // Before anything is appended.
  void LayOutByPart() { num_blocks_ = static_cast<int64_t>(cache_.size()) / block_bytes_; }
  KvCacheView view() {
    return {cache_.data(), block_bytes_, shape_.type, shape_.kv(), num_blocks_};
  }
  int num_rows() const { return num_rows_; }
  int64_t q_width() const { return int64_t{shape_.num_heads} * shape_.head_dim; }
  int64_t kv_width() const { return int64_t{shape_.num_kv_heads} * shape_.head_dim; }
  int64_t out_width() const { return int64_t{shape_.num_heads} * shape_.kv().value_dim; }
  const std::vector<SequenceRows>& rows() const { return rows_; }
  // One block after the other, however they are laid out.
  std::vector<uint8_t> Blocks() const {
    if (num_blocks_ == 0) return cache_;
    const KvShape shape = shape_.kv();
    const int64_t parts = shape.layout == KvLayout::kLatent ? 1 : 2 * shape.num_heads;
    const int64_t bytes = block_bytes_ / parts;  // keys and values of kHeads are as long here
    std::vector<uint8_t> blocks(cache_.size());
    for (int64_t i = 0; i < parts * num_blocks_; ++i) {
      std::copy_n(&cache_[i * bytes], bytes,
                  &blocks[i % num_blocks_ * block_bytes_ + i / num_blocks_ * bytes]);
    }
    return blocks;
  }

  // Fills the tokens before each sequence's step, then the step itself, through `table`.
  void Append(const KernelTable& table, const std::vector<float>& k, const std::vector<float>& v,
              uint64_t history_seed) {
    Rng history(history_seed);
    for (const SequenceRows& s : rows_) {
      if (s.position == 0) continue;
      const std::vector<float> hk = Normals(history, s.position * kv_width());
      const std::vector<float> hv = Normals(history, s.position * kv_width());
      const SequenceRows past = {0, s.position, 0, s.blocks};
      EXPECT_TRUE(table.kv_append({view(), hk.data(), kv_width(), hv.data(), kv_width(), &past, 1},
                                  0, s.position));
    }
    const KvAppendArgs args = {view(),
                               k.data(),
                               kv_width(),
                               v.data(),
                               kv_width(),
                               rows_.data(),
                               static_cast<int32_t>(rows_.size())};
    ForRandomSlices(*rng_, num_rows_,
                    [&](int64_t b, int64_t e) { EXPECT_TRUE(table.kv_append(args, b, e)); });
  }

  // In slices, or all at once, as a GPU worker does.
  std::vector<float> Attend(const KernelTable& table, const std::vector<float>& q,
                            bool at_once = false) {
    Guarded<float> out(num_rows_ * out_width());
    Guarded<float> scratch(AttentionScratchFloats(shape_.kv()));
    const AttentionArgs args = Args(q, &out, &scratch);
    const int64_t tasks = int64_t{num_rows_} * shape_.num_heads / args.heads_per_task;
    if (at_once) {
      table.attention(args, 0, tasks);
    } else {
      ForRandomSlices(*rng_, tasks, [&](int64_t b, int64_t e) { table.attention(args, b, e); });
    }
    out.ExpectGuardsIntact();
    scratch.ExpectGuardsIntact();
    return {out.data(), out.data() + out.size()};
  }

  // The same in two phases, from row `first` on.
  std::vector<float> AttendInParts(const KernelTable& table, const std::vector<float>& q,
                                   int first) {
    Guarded<float> out(num_rows_ * out_width());
    Guarded<float> scratch(AttentionScratchFloats(shape_.kv()));
    AttentionArgs args = Args(q, &out, &scratch);
    const int64_t groups = args.num_heads / args.heads_per_task;
    for (const SequenceRows& s : rows_) {
      args.part_splits = std::max<int64_t>(args.part_splits, (s.position + s.num_rows + 255) / 256);
    }
    args.first_row = first;
    args.q += first * args.q_stride;
    args.out += first * args.out_stride;
    const int64_t tasks = (num_rows_ - first) * groups;
    Guarded<float> parts(tasks * args.part_splits * args.heads_per_task *
                         AttentionPartFloats(shape_.kv()));
    args.parts = parts.data();
    for (int64_t task = first * groups; task < num_rows_ * groups; ++task) {
      ForRandomSlices(*rng_, args.part_splits,
                      [&](int64_t b, int64_t e) { table.attention_parts(args, task, b, e); });
    }
    ForRandomSlices(*rng_, tasks, [&](int64_t b, int64_t e) {
      table.attention_merge(args, first * groups + b, first * groups + e);
    });
    out.ExpectGuardsIntact();
    scratch.ExpectGuardsIntact();
    parts.ExpectGuardsIntact();
    return {out.data() + first * out_width(), out.data() + out.size()};
  }

  static std::vector<float> Normals(Rng& rng, int64_t n) {
    std::vector<float> v(n);
    for (float& f : v) f = Normal(rng);
    return v;
  }

 private:
  AttentionArgs Args(const std::vector<float>& q, Guarded<float>* out, Guarded<float>* scratch) {
    // Heads of a task are a divisor of those that share a KV head, and at most a batch.
    const int sharing = shape_.num_heads / shape_.num_kv_heads;
    int heads_per_task = static_cast<int>(Uniform(*rng_, 1, std::min(sharing, 48)));
    while (sharing % heads_per_task != 0) --heads_per_task;
    return {.kv = view(),
            .q = q.data(),
            .q_stride = q_width(),
            .out = out->data(),
            .out_stride = out_width(),
            .sequences = rows_.data(),
            .num_sequences = static_cast<int32_t>(rows_.size()),
            .num_heads = shape_.num_heads,
            .heads_per_task = heads_per_task,
            .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
            .scratch = scratch->data(),
            .window = shape_.window,
            .sinks = shape_.sinks ? q.data() : nullptr};  // any numbers do
  }

  Shape shape_;
  Rng* rng_;
  int64_t block_bytes_ = 0;
  int64_t num_blocks_ = 0;  // of the view
  std::vector<uint8_t> cache_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<SequenceRows> rows_;
  int num_rows_ = 0;
};

std::string Describe(const KernelTable& table, const Shape& s) {
  return absl::StrCat(table.name, " ", KvTypeName(s.type), " heads=", s.num_heads, "/",
                      s.num_kv_heads, " dim=", s.head_dim, "/", s.kv().value_dim,
                      " window=", s.window, s.sinks ? " sinks" : "");
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
    {KvType::kBF16, 9, 3, 64},
    {KvType::kBF16, 64, 1, 36},
    {KvType::kQ8_0, 9, 3, 64},
    {KvType::kQ8_0, 4, 2, 36, 33, true},
    {KvType::kQ8_0, 2, 2, 80},
    {KvType::kQ8_0, 64, 1, 16},
    {KvType::kF32, 8, 1, 96, 0, false, 64},
    {KvType::kF16, 16, 1, 576, 0, false, 512},
    {KvType::kF16, 5, 1, 42, 0, false, 33},
    {KvType::kBF16, 12, 1, 96, 0, false, 64},
    {KvType::kQ8_0, 16, 1, 576, 0, false, 512},
    {KvType::kQ8_0, 3, 1, 50, 70, true, 36},
};

// sequences: tokens before the step, rows of the step. Scores spread as `spread`.
void ExpectTablesAgree(Rng& rng, const Shape& shape,
                       const std::vector<std::pair<int, int>>& sequences, uint64_t seed,
                       float spread = 1.0f) {
  Fixture reference(rng, shape, sequences);
  const auto k = Fixture::Normals(rng, reference.num_rows() * reference.kv_width());
  const auto v = RandomFloats(rng, reference.num_rows() * reference.kv_width());
  auto q = Fixture::Normals(rng, reference.num_rows() * reference.q_width());
  for (float& f : q) f *= spread;
  const Fixture copy = reference;
  reference.Append(*FindTable(Isa::kScalar), k, v, seed);
  const auto expected = reference.Attend(*FindTable(Isa::kScalar), q);
  for (float f : expected) ASSERT_TRUE(std::isfinite(f)) << "an unwritten slot was read";
  std::set<void (*)(const AttentionArgs&, int64_t, int64_t)> seen;  // tables may share it
  for (const KernelTable* table : AttentionTablesUnderTest()) {
    if (!seen.insert(table->attention).second) continue;
    Fixture other = copy;
    const bool by_part = ReadsKvByPart(*table) && Uniform(rng, 0, 1) == 1;
    if (by_part) other.LayOutByPart();
    other.Append(*table, k, v, seed);
    ASSERT_EQ(reference.Blocks(), other.Blocks()) << Describe(*table, shape);
    if (table->isa != Isa::kScalar) {
      for (const bool at_once : {false, true}) {
        const auto actual = other.Attend(*table, q, at_once);
        ExpectSameBits(
            expected.data(), actual.data(), static_cast<int64_t>(expected.size()),
            Describe(*table, shape) + (at_once ? " at once" : "") + (by_part ? " by part" : ""));
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
    // Two phases are for few rows: the last ones will do.
    const int first = std::max(0, other.num_rows() - 3);
    const auto in_parts = other.AttendInParts(*table, q, first);
    ExpectSameBits(expected.data() + first * other.out_width(), in_parts.data(),
                   static_cast<int64_t>(in_parts.size()), Describe(*table, shape) + " in parts");
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(AttentionTest, EveryTableGivesTheReferenceBytes) {
  const uint64_t seed = dovetail::testing::TestSeed();
  Rng rng(seed);
  for (const Shape& shape : kShapes) {
    for (int trial = 0; trial < 4; ++trial) {
      std::vector<std::pair<int, int>> sequences;
      const int count = static_cast<int>(Uniform(rng, 1, 4));
      for (int i = 0; i < count; ++i) {
        // The reference takes a while for long vectors, and minutes under a sanitizer.
        const int longest = trial == 0 ? 40 : shape.head_dim > 128 ? 280 : 600;
        const int rows = std::clamp(8192 / (shape.num_heads * shape.head_dim), 4, 40);
        sequences.emplace_back(Uniform(rng, 0, longest), Uniform(rng, 1, rows));
      }
      ExpectTablesAgree(rng, shape, sequences, seed + trial);
      if (HasFatalFailure()) return;
    }
  }
}

// Of most keys the weight is tiny or nothing.
TEST(AttentionTest, ScoresFarApart) {
  const uint64_t seed = dovetail::testing::TestSeed();
  Rng rng(seed);
  const float spreads[] = {20.0f, 60.0f, 1000.0f};
  for (size_t i = 0; i < std::size(kShapes); ++i) {
    const int past = static_cast<int>(Uniform(rng, 0, kShapes[i].head_dim > 128 ? 40 : 270));
    ExpectTablesAgree(rng, kShapes[i], {{past, 3}}, seed, spreads[i % 3]);
    if (HasFatalFailure()) return;
  }
}

// In little time: what an emulated processor runs (emulated_avx2_test.sh).
TEST(AttentionTest, EveryShapeOnce) {
  Rng rng(dovetail::testing::TestSeed());
  for (const Shape& shape : kShapes) {
    ExpectTablesAgree(rng, shape, {{37, 1}, {0, 5}}, 1);
    if (HasFatalFailure()) return;
  }
}

// Decoding, where as many queries as heads share keys make one tile, two or more. Latent vectors
// with an element in a piece of its own, and with a scale that is not whole.
TEST(AttentionTest, EachNumberOfHeadsThatShareKeys) {
  const uint64_t seed = dovetail::testing::TestSeed();
  Rng rng(seed);
  constexpr KvType kTypes[] = {KvType::kF16, KvType::kQ8_0, KvType::kF32, KvType::kBF16};
  for (int sharing = 1; sharing <= 18; ++sharing) {
    for (const KvType type : kTypes) {
      const int past = static_cast<int>(Uniform(rng, 33, 96));
      ExpectTablesAgree(rng, {type, sharing, 1, 80}, {{past, 1}, {past + 16, 1}}, seed);
      if (sharing % 4 == 0 || sharing % 5 == 2) {  // groups of 16, whole or not
        ExpectTablesAgree(rng, {type, sharing, 1, 88, 0, false, 64}, {{past, 1}, {30, 2}}, seed);
        ExpectTablesAgree(rng, {type, sharing, 1, 65, 0, false, 33}, {{past, 1}}, seed);
      }
      if (HasFatalFailure()) return;
    }
  }
}

// Shapes of which a GPU makes tiles of queries (kernels/cuda/attention_tile.inl.h): heads that
// share keys fill 32 queries or do not, dims fill a stage or do not, values take one pass or two.
const Shape kPromptShapes[] = {
    {KvType::kF32, 2, 2, 132},
    {KvType::kF16, 12, 2, 64},
    {KvType::kBF16, 9, 3, 36, 50, true},
    {KvType::kQ8_0, 5, 1, 80, 0, true},
    {KvType::kF32, 7, 1, 96, 0, false, 64},
    {KvType::kF16, 40, 1, 36, 300, true, 20},
    {KvType::kBF16, 3, 1, 140, 0, true, 132},
    {KvType::kQ8_0, 32, 1, 72, 33, false, 68},
};

// Prompts of all lengths beside rows that decode, in one step. A first chunk, chunks in the middle
// of a split, across the end of one, and behind it.
TEST(AttentionTest, PromptsBesideDecoding) {
  const uint64_t seed = dovetail::testing::TestSeed();
  Rng rng(seed);
  for (const Shape& shape : kPromptShapes) {
    ExpectTablesAgree(rng, shape, {{0, 70}, {300, 1}, {230, 33}, {511, 17}, {90, 2}}, seed);
    if (HasFatalFailure()) return;
    ExpectTablesAgree(rng, shape, {{static_cast<int>(Uniform(rng, 0, 270)), 40}}, seed);
    if (HasFatalFailure()) return;
  }
}

void ExpectCloseToF64(const Shape& shape, double tolerance = 2e-6) {
  Rng rng(dovetail::testing::TestSeed());
  Fixture f(rng, shape, {{0, 700}});
  const bool latent = shape.value_dim > 0;
  const int value_dim = shape.kv().value_dim;
  const auto k = Fixture::Normals(rng, 700 * 32);
  const auto v = latent ? k : Fixture::Normals(rng, 700 * 32);
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
      for (int d = 0; d < value_dim; ++d) {
        double expected = 0;
        for (int j = first; j <= row; ++j) expected += p[j] / l * v[j * 32 + d];
        EXPECT_NEAR(out[(row * 2 + head) * value_dim + d], expected, tolerance) << row << " " << d;
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
  ExpectCloseToF64({KvType::kF32, 2, 1, 32, 0, false, 24});
}

// By the relative precision of what is stored, for values of about 1.
TEST(AttentionTest, StoredTypesAreAsPreciseAsTheyCanBe) {
  ExpectCloseToF64({KvType::kF16, 2, 1, 32}, 4e-3);
  ExpectCloseToF64({KvType::kBF16, 2, 1, 32}, 3e-2);
  ExpectCloseToF64({KvType::kQ8_0, 2, 1, 32}, 4e-2);
  ExpectCloseToF64({KvType::kQ8_0, 2, 1, 32, 0, false, 24}, 4e-2);
}

// One token's key, as attention reads it back: with one visible key of weight 1 its value.
std::vector<float> StoreAndRead(const KernelTable& table, KvType type, std::vector<float> x,
                                bool* finite) {
  const auto dim = static_cast<int32_t>(x.size());
  const KvShape shape = {KvLayout::kLatent, 1, dim, dim};
  std::vector<uint8_t> cache(KvBlockBytes(shape, type));
  const int32_t block = 0;
  const SequenceRows s = {0, 1, 0, &block};
  const KvCacheView view = {cache.data(), KvBlockBytes(shape, type), type, shape};
  *finite = table.kv_append({view, x.data(), dim, nullptr, 0, &s, 1}, 0, 1);
  std::vector<float> q(dim, 0.0f), out(dim), scratch(AttentionScratchFloats(shape));
  table.attention({.kv = view,
                   .q = q.data(),
                   .q_stride = dim,
                   .out = out.data(),
                   .out_stride = dim,
                   .sequences = &s,
                   .num_sequences = 1,
                   .num_heads = 1,
                   .heads_per_task = 1,
                   .scale = 1.0f,
                   .scratch = scratch.data()},
                  0, 1);
  return out;
}

TEST(KvAppendTest, Q8_0HasOneScaleForThirtyTwo) {
  std::vector<float> x(40, 0.25f);
  x[3] = -127.0f;  // scale 1
  x[35] = 0.5f;    // scale 0.5 / 127
  for (const KernelTable* table : TablesUnderTest()) {
    bool finite = false;
    const std::vector<float> read = StoreAndRead(*table, KvType::kQ8_0, x, &finite);
    EXPECT_TRUE(finite);
    EXPECT_EQ(read[3], -127.0f);
    EXPECT_EQ(read[4], 0.0f);
    EXPECT_NEAR(read[33], 0.25f, 0.003f);
    EXPECT_NEAR(read[35], 0.5f, 0.003f);
  }
}

TEST(KvAppendTest, TinyAndZeroVectorsStayFinite) {
  for (const KernelTable* table : TablesUnderTest()) {
    for (const float tiny : {0.0f, 1e-38f, 3e-8f, 9e-6f, 1.3e-5f}) {
      bool finite = false;
      for (const float f : StoreAndRead(*table, KvType::kQ8_0, {tiny, -tiny, tiny}, &finite)) {
        EXPECT_LE(std::abs(f), 2 * tiny) << table->name;
      }
      EXPECT_TRUE(finite);
    }
  }
}

TEST(KvAppendTest, SaysWhatCannotBeStored) {
  struct Limit {
    KvType type;
    float largest, too_large;
  };
  const float inf = INFINITY, nan = NAN;
  const Limit limits[] = {{KvType::kF32, 3.4e38f, inf},
                          {KvType::kF16, 65519.996f, 65520.0f},
                          {KvType::kBF16, 0x1.fefffep+127f, 0x1.ffp+127f},
                          {KvType::kQ8_0, 8321039.5f, 8321040.0f}};
  for (const KernelTable* table : TablesUnderTest()) {
    for (const Limit& limit : limits) {
      for (const int at : {0, 5, 19, 33}) {
        const auto finite = [&](float value) {
          std::vector<float> x(37, 1.0f);
          x[at] = value;
          bool result = false;
          StoreAndRead(*table, limit.type, x, &result);
          return result;
        };
        EXPECT_TRUE(finite(-limit.largest)) << table->name << KvTypeName(limit.type);
        EXPECT_FALSE(finite(-limit.too_large)) << table->name << KvTypeName(limit.type);
        EXPECT_FALSE(finite(-inf)) << table->name << KvTypeName(limit.type);
        EXPECT_FALSE(finite(nan)) << table->name << KvTypeName(limit.type);
      }
    }
  }
}

// The same tokens as one prefill, in chunks, and one by one.
TEST(AttentionTest, ChunksDoNotChangeBits) {
  Rng rng(dovetail::testing::TestSeed());
  const Shape shape = {KvType::kF16, 6, 2, 64};
  const int tokens = 300;
  const auto k = Fixture::Normals(rng, tokens * 128), v = Fixture::Normals(rng, tokens * 128);
  const auto q = Fixture::Normals(rng, tokens * 384);
  const std::vector<int32_t> blocks = {3, 0, 7, 1, 9, 2, 8, 4, 6, 5};
  const int64_t block_bytes = KvBlockBytes(shape.kv(), shape.type);
  std::vector<std::vector<float>> results;
  for (int window : {0, 40}) {
    results.clear();
    for (const KernelTable* table : TablesUnderTest()) {
      for (int chunk : {300, 1, 7, 64}) {
        std::vector<uint8_t> cache(block_bytes * 10, 0xff);
        const KvCacheView view = {cache.data(), block_bytes, shape.type, shape.kv()};
        std::vector<float> out(tokens * 384), scratch(AttentionScratchFloats(shape.kv()));
        for (int at = 0; at < tokens; at += chunk) {
          const int rows = std::min(chunk, tokens - at);
          const SequenceRows s = {0, rows, at, blocks.data()};
          table->kv_append({view, &k[at * 128], 128, &v[at * 128], 128, &s, 1}, 0, rows);
          // q and out begin with a row of their own.
          const int64_t first = rows / 3;
          for (const auto& [begin, end] : {std::pair{int64_t{0}, first}, {first, int64_t{rows}}}) {
            table->attention({.kv = view,
                              .q = &q[(at + begin) * 384],
                              .q_stride = 384,
                              .out = &out[(at + begin) * 384],
                              .out_stride = 384,
                              .sequences = &s,
                              .num_sequences = 1,
                              .num_heads = 6,
                              .heads_per_task = 3,
                              .scale = 0.125f,
                              .scratch = scratch.data(),
                              .window = window,
                              .sinks = q.data(),
                              .first_row = begin},
                             begin * 2, end * 2);
          }
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
