// Norms, SiLU, RoPE, softmax and the searches: every table against the scalar reference, byte for
// byte.
#include "absl/strings/str_cat.h"
#include "kernels/kernel_table.h"
#include "tests/testing/test_data.h"
#include "tests/unit/kernels/random_inputs.h"

namespace dovetail::kernels {
namespace {

using namespace testing;  // NOLINT: kernels' own test helpers

const KernelTable& Scalar() { return *FindTable(Isa::kScalar); }

// Runs `op(table, out)` on the reference and on every table, and compares the outputs.
template <typename Op>
void ExpectSame(int64_t size, const Op& op) {
  Guarded<float> expected(size);
  op(Scalar(), expected.data());
  for (const KernelTable* table : AvailableTables()) {
    Guarded<float> actual(size);
    op(*table, actual.data());
    actual.ExpectGuardsIntact();
    ExpectSameBits(expected.data(), actual.data(), size, table->name);
  }
}

TEST(RmsNormTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (int cols : {1, 15, 16, 17, 31, 32, 33, 576, 1000}) {
    const int64_t rows = 5;
    const auto x = RandomFloats(rng, rows * cols), w = RandomFloats(rng, cols);
    ExpectSame(rows * cols, [&](const KernelTable& table, float* y) {
      const RmsNormArgs args = {x.data(), cols, w.data(), y, cols, cols, 1e-5f};
      ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { table.rms_norm(args, b, e); });
    });
  }
}

TEST(RmsNormTest, IsTheRootMeanSquareAndMayRunInPlace) {
  std::vector<float> x = {3, -4, 0, 5}, w = {1, 2, 3, 4};
  const double inverse = 1 / std::sqrt(50.0 / 4 + 1e-6);
  for (const KernelTable* table : AvailableTables()) {
    std::vector<float> y = x;
    table->rms_norm({y.data(), 4, w.data(), y.data(), 4, 4, 1e-6f}, 0, 1);
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(y[i], x[i] * w[i] * inverse, 1e-6) << table->name;
  }
}

TEST(SiluMulTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (int cols : {1, 16, 100, 1536}) {
    const int64_t rows = 4;
    auto gate = RandomFloats(rng, rows * cols);
    const auto up = RandomFloats(rng, rows * cols);
    gate[0] = -INFINITY;
    if (cols > 4) gate[1] = NAN, gate[2] = -1e4f, gate[3] = 1e4f;
    ExpectSame(rows * cols, [&](const KernelTable& table, float* y) {
      const SiluMulArgs args = {gate.data(), up.data(), cols, y, cols, cols};
      ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { table.silu_mul(args, b, e); });
    });
  }
}

TEST(RopeTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (bool interleaved : {false, true}) {
    for (const auto& [head_dim, rope_dim] : {std::pair{64, 64}, {80, 32}, {36, 36}, {128, 20}}) {
      const int64_t rows = 3, heads = 5, width = heads * head_dim;
      const auto x = RandomFloats(rng, rows * width), angles = RandomFloats(rng, rows * rope_dim);
      ExpectSame(rows * width, [&](const KernelTable& table, float* y) {
        std::memcpy(y, x.data(), x.size() * sizeof(float));
        const RopeArgs args = {y, width, angles.data(), heads, head_dim, rope_dim, interleaved};
        ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { table.rope(args, b, e); });
      });
    }
  }
}

TEST(RopeTest, RotatesPairs) {
  const float cos_sin[] = {0.6f, 1.0f, 0.8f, 0.0f};
  for (const KernelTable* table : AvailableTables()) {
    float halves[] = {1, 7, 2, 9};
    table->rope({halves, 4, cos_sin, 1, 4, 4, false}, 0, 1);
    EXPECT_FLOAT_EQ(halves[0], 0.6f - 1.6f);
    EXPECT_FLOAT_EQ(halves[2], 0.8f + 1.2f);
    EXPECT_EQ(halves[1], 7);
    float pairs[] = {1, 2, 7, 9};
    table->rope({pairs, 4, cos_sin, 1, 4, 4, true}, 0, 1);
    EXPECT_FLOAT_EQ(pairs[0], 0.6f - 1.6f);
    EXPECT_FLOAT_EQ(pairs[1], 0.8f + 1.2f);
    EXPECT_EQ(pairs[3], 9);
  }
}

TEST(SoftmaxTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (int cols : {1, 7, 16, 33, 1000, 49152}) {
    for (bool nan : {false, true}) {
      auto x = RandomFloats(rng, cols);
      if (nan) x[cols / 2] = NAN;
      float sum = 0;
      ExpectSame(cols + 1, [&](const KernelTable& table, float* p) {
        sum = table.softmax({x.data(), p, cols, 0.7f});
        p[cols] = sum;
      });
      EXPECT_EQ(std::isnan(sum), nan);
      EXPECT_TRUE(nan || sum >= 1.0f);
    }
  }
}

TEST(ArgMaxTest, TiesGoToTheLowestIndexAndNanIsReported) {
  Rng rng(dovetail::testing::TestSeed());
  for (const KernelTable* table : AvailableTables()) {
    for (int64_t n : {1, 5, 16, 40, 1001}) {
      std::vector<float> x(n);
      for (float& f : x) f = static_cast<float>(Uniform(rng, -3, 3));
      const int32_t expected =
          static_cast<int32_t>(std::max_element(x.begin(), x.end()) - x.begin());
      EXPECT_EQ(table->argmax(x.data(), n), expected) << table->name << " " << n;
      EXPECT_TRUE(table->all_finite(x.data(), n));
      const int64_t at = Uniform(rng, 0, n - 1);
      x[at] = INFINITY;
      EXPECT_EQ(table->argmax(x.data(), n), at);
      EXPECT_FALSE(table->all_finite(x.data(), n));
      x[at] = NAN;
      EXPECT_EQ(table->argmax(x.data(), n), -1);
      EXPECT_FALSE(table->all_finite(x.data(), n));
    }
    const std::vector<float> all(20, -INFINITY);
    EXPECT_EQ(table->argmax(all.data(), 20), 0);
  }
}

TEST(ReadStreamTest, XorsEveryWord) {
  Rng rng(dovetail::testing::TestSeed());
  for (int64_t bytes : {8, 64, 1000, 4096}) {
    std::vector<uint8_t> data(bytes);
    for (uint8_t& b : data) b = static_cast<uint8_t>(rng());
    const uint64_t expected = Scalar().read_stream(data.data(), bytes);
    for (const KernelTable* table : AvailableTables()) {
      EXPECT_EQ(table->read_stream(data.data(), bytes), expected) << table->name << " " << bytes;
    }
  }
}

TEST(RandomInputsTest, AreNotConstant) {
  Rng rng(dovetail::testing::TestSeed());
  const auto a = RandomFloats(rng, 100), b = RandomFloats(rng, 100);
  EXPECT_NE(a, b);
  EXPECT_NE(a[0], a[1]);
}

}  // namespace
}  // namespace dovetail::kernels
