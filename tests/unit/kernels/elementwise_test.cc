// Norms, gated activations, RoPE, softmax and the searches: every table against the scalar
// reference, byte for byte.
#include "absl/strings/str_cat.h"
#include "kernels/kernel_table.h"
#include "tests/testing/kernel_tables.h"
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
  for (const KernelTable* table : TablesUnderTest()) {
    Guarded<float> actual(size);
    op(*table, actual.data());
    actual.ExpectGuardsIntact();
    ExpectSameBits(expected.data(), actual.data(), size, table->name);
  }
}

TEST(RmsNormTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  // Columns of a warp, of a block's stages with loads of four and of one, and one more or less.
  for (int cols : {1,   15,  16,  17,  31,   32,   33,   128,  129,  511, 512,
                   513, 576, 604, 895, 1000, 2048, 2053, 4100, 8192, 8196}) {
    const int64_t rows = 3, stride = cols + Uniform(rng, 0, 1) * Uniform(rng, 1, 4);
    const auto x = RandomFloats(rng, rows * stride), w = RandomFloats(rng, cols);
    for (bool accumulate : {false, true}) {
      ExpectSame(rows * stride, [&](const KernelTable& table, float* y) {
        std::memcpy(y, x.data(), x.size() * sizeof(float));
        RmsNormArgs args = {x.data(), stride, w.data(), y, stride, cols, 1e-5f};
        args.accumulate = accumulate;
        ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { table.rms_norm(args, b, e); });
      });
    }
    ExpectSame(rows * stride, [&](const KernelTable& table, float* y) {  // in place
      std::memcpy(y, x.data(), x.size() * sizeof(float));
      const RmsNormArgs args = {y, stride, w.data(), y, stride, cols, 1e-5f};
      ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { table.rms_norm(args, b, e); });
    });
  }
}

TEST(RmsNormTest, IsTheRootMeanSquareAndMayRunInPlace) {
  std::vector<float> x = {3, -4, 0, 5}, w = {1, 2, 3, 4};
  const double inverse = 1 / std::sqrt(50.0 / 4 + 1e-6);
  for (const KernelTable* table : TablesUnderTest()) {
    std::vector<float> y = x;
    table->rms_norm({y.data(), 4, w.data(), y.data(), 4, 4, 1e-6f}, 0, 1);
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(y[i], x[i] * w[i] * inverse, 1e-6) << table->name;
    std::vector<float> sum = w;
    table->rms_norm({x.data(), 4, w.data(), sum.data(), 4, 4, 1e-6f, /*accumulate=*/true}, 0, 1);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(sum[i], w[i] + y[i]) << table->name;
  }
}

using GatedKernel = void (*KernelTable::*)(const GatedArgs&, int64_t, int64_t);
constexpr GatedKernel kGatedKernels[] = {&KernelTable::silu_mul, &KernelTable::gelu_mul,
                                         &KernelTable::swiglu_oai};

TEST(GatedTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (GatedKernel kernel : kGatedKernels) {
    for (int cols : {1, 16, 100, 301, 1536}) {
      const int64_t rows = 4, stride = cols + Uniform(rng, 0, 1);
      auto gate = RandomFloats(rng, rows * stride), up = RandomFloats(rng, rows * stride);
      gate[0] = -INFINITY;
      if (cols > 4) gate[1] = NAN, gate[2] = -1e4f, gate[3] = 1e4f, up[4] = NAN;
      ExpectSame(rows * cols, [&](const KernelTable& table, float* y) {
        const GatedArgs args = {gate.data(), up.data(), stride, y, cols, cols};
        ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { (table.*kernel)(args, b, e); });
      });
    }
  }
}

TEST(GatedTest, AreThePublishedFunctions) {
  const std::vector<float> gate = {-30, -3, -0.5f, 0, 1e-3f, 0.7f, 2.5f, 6.9f, 7.1f, 40};
  const std::vector<float> up = {1, -2, 8, 3, -9, 0.25f, 1, 2, 3, 4};
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i], u = up[i];
    const double clamped_g = std::min(g, 7.0), clamped_u = std::clamp(u, -7.0, 7.0);
    const double expected[] = {
        g / (1 + std::exp(-g)) * u,
        0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u,
        clamped_g / (1 + std::exp(-1.702 * clamped_g)) * (clamped_u + 1)};
    for (int k = 0; k < 3; ++k) {
      float y = 0;
      (Scalar().*kGatedKernels[k])({&gate[i], &up[i], 1, &y, 1, 1}, 0, 1);
      EXPECT_NEAR(y, expected[k], 2e-6 * std::max(1.0, std::abs(expected[k]))) << k << " " << g;
    }
  }
}

TEST(SigmoidTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (int cols : {1, 8, 16, 100}) {
    auto x = RandomFloats(rng, cols);
    if (cols > 4) x[1] = NAN, x[2] = -1e4f, x[3] = 1e4f, x[4] = INFINITY;
    ExpectSame(cols, [&](const KernelTable& table, float* y) { table.sigmoid(x.data(), y, cols); });
  }
  const float x = 0.75f;
  float y = 0;
  Scalar().sigmoid(&x, &y, 1);
  EXPECT_NEAR(y, 1 / (1 + std::exp(-0.75)), 1e-7);
}

TEST(CombineTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  const int64_t rows = 5, sources = 7;
  for (int cols : {1, 16, 100, 257, 1028}) {
    const auto slots = static_cast<int32_t>(Uniform(rng, 1, 20));
    const auto x = RandomFloats(rng, rows * cols), y = RandomFloats(rng, sources * cols);
    const auto weights = RandomFloats(rng, rows * slots);
    std::vector<int32_t> ids(rows * slots);
    for (int32_t& id : ids) id = static_cast<int32_t>(Uniform(rng, 0, sources - 1));
    ExpectSame(rows * cols, [&](const KernelTable& table, float* out) {
      std::memcpy(out, x.data(), x.size() * sizeof(float));
      const CombineArgs args = {y.data(), cols, ids.data(), weights.data(), slots, out, cols, cols};
      ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { table.combine(args, b, e); });
    });
  }
  const float y[] = {1, 2, 3, 4};
  const int32_t ids[] = {1, 0};
  const float weights[] = {0.5f, 10};
  float x[] = {100, 200};
  Scalar().combine({y, 2, ids, weights, 2, x, 2, 2}, 0, 1);
  EXPECT_EQ(x[0], 100 + 1.5f + 10);
  EXPECT_EQ(x[1], 200 + 2 + 20);
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
  for (const KernelTable* table : TablesUnderTest()) {
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
  for (const KernelTable* table : TablesUnderTest()) {
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
    for (const KernelTable* table : TablesUnderTest()) {
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
