// exp and the angles of RoPE against libm in f64.
#include "kernels/kernel_table.h"
#include "kernels/ref/ref.h"
#include "tests/testing/kernel_tables.h"
#include "tests/testing/test_data.h"
#include "tests/unit/kernels/random_inputs.h"

namespace dovetail::kernels {
namespace {

using namespace testing;  // NOLINT: kernels' own test helpers

// |actual - exact| in units of the last place of `exact` as f32.
double UlpError(float actual, double exact) {
  const float rounded = static_cast<float>(exact);
  const float next = std::nextafter(rounded, INFINITY);
  return std::abs(actual - exact) / (double{next} - rounded);
}

TEST(ExpTest, IsWithinTwoUlpOfF64) {
  double worst = 0;
  // Every 389th float from -104 to 88.7.
  for (uint32_t bits = 0; bits < 0x42d00000; bits += 389) {
    for (float x : {std::bit_cast<float>(bits), -std::bit_cast<float>(bits)}) {
      if (x > 88.72f) continue;
      const double error = UlpError(ref::Exp(x), std::exp(double{x}));
      ASSERT_LT(error, 2.0) << x;
      worst = std::max(worst, error);
    }
  }
  std::printf("worst error of exp: %.3f ulp\n", worst);
  EXPECT_GT(worst, 0.3);
}

TEST(ExpTest, Edges) {
  EXPECT_EQ(ref::Exp(0.0f), 1.0f);
  EXPECT_EQ(ref::Exp(-0.0f), 1.0f);
  EXPECT_EQ(ref::Exp(-INFINITY), 0.0f);
  EXPECT_EQ(ref::Exp(-1000.0f), 0.0f);
  EXPECT_EQ(ref::Exp(INFINITY), INFINITY);
  EXPECT_EQ(ref::Exp(89.0f), INFINITY);
  EXPECT_EQ(ref::Exp(-103.0f), std::exp(-103.0f));  // subnormal
  EXPECT_TRUE(std::isnan(ref::Exp(NAN)));
}

TEST(AttentionWeightTest, IsExpAndNothingFarBelowTheBestKey) {
  EXPECT_EQ(ref::AttentionWeight(0.0f), 1.0f);
  EXPECT_EQ(ref::AttentionWeight(-59.9f), ref::Exp(-59.9f));
  EXPECT_EQ(ref::AttentionWeight(-60.0f), ref::Exp(-60.0f));
  EXPECT_EQ(ref::AttentionWeight(std::nextafter(-60.0f, -INFINITY)), 0.0f);
  EXPECT_EQ(ref::AttentionWeight(-INFINITY), 0.0f);
  EXPECT_TRUE(std::isnan(ref::AttentionWeight(NAN)));
  // The smallest product that attention makes of a stored half is no subnormal number.
  EXPECT_GE(ref::AttentionWeight(-60.0f) * 0x1p-24f, std::numeric_limits<float>::min());
}

// exp(x - 0) through softmax, whose maximum is 0: a dense sweep of all negative exponents.
TEST(ExpTest, EveryTableGivesTheReferenceBits) {
  constexpr int kChunk = 1 << 16;
  std::vector<float> x(kChunk), expected(kChunk), actual(kChunk);
  for (uint64_t first = 0x80000000; first < 0xff800000; first += kChunk * 251ull) {
    for (int i = 0; i < kChunk; ++i) {
      x[i] = std::bit_cast<float>(static_cast<uint32_t>(first + i * 251ull));
      if (!(x[i] <= 0)) x[i] = -1.0f;
    }
    x[0] = 0.0f;
    const float sum = FindTable(Isa::kScalar)->softmax({x.data(), expected.data(), kChunk, 1.0f});
    for (const KernelTable* table : TablesUnderTest()) {
      EXPECT_TRUE(SameBits(table->softmax({x.data(), actual.data(), kChunk, 1.0f}), sum));
      ASSERT_EQ(std::memcmp(expected.data(), actual.data(), kChunk * sizeof(float)), 0)
          << table->name;
    }
  }
}

void ExpectAngles(int32_t position, const std::vector<float>& inv_freq) {
  const int n = static_cast<int>(inv_freq.size());
  std::vector<float> out(2 * n);
  RopeAngles(position, inv_freq.data(), n, 1.0f, out.data());
  for (int i = 0; i < n; ++i) {
    const double angle = double{inv_freq[i]} * position;
    for (auto [got, exact] : {std::pair{out[i], std::cos(angle)}, {out[n + i], std::sin(angle)}}) {
      ASSERT_LE(UlpError(got, exact), 1.0) << position << " * " << inv_freq[i];
    }
  }
}

TEST(RopeAnglesTest, AreWithinOneUlpOfLibm) {
  std::vector<float> inv_freq;
  for (double theta : {1e4, 1e5, 5e5, 1e7}) {
    for (int i = 0; i < 32; ++i) {
      inv_freq.push_back(static_cast<float>(std::pow(theta, -i / 32.0)));
    }
  }
  Rng rng(dovetail::testing::TestSeed());
  for (int32_t p = 0; p < 2000; ++p) ExpectAngles(p, inv_freq);
  for (int i = 0; i < 5000; ++i) {
    ExpectAngles(static_cast<int32_t>(Uniform(rng, 0, 1 << 24)), inv_freq);
  }
  ExpectAngles(1 << 24, inv_freq);
}

TEST(RopeAnglesTest, FactorScalesBoth) {
  const float inv_freq[] = {1.0f, 0.1f};
  float plain[4], scaled[4];
  RopeAngles(7, inv_freq, 2, 1.0f, plain);
  RopeAngles(7, inv_freq, 2, 2.0f, scaled);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(scaled[i], 2 * plain[i]);
}

}  // namespace
}  // namespace dovetail::kernels
