#include "base/float_convert.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "tests/testing/test_data.h"

namespace dovetail {
namespace {

// The value of a half by its definition.
double HalfValue(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
  const double sign = h & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(FloatConvertTest, EveryHalfHasItsValueAndComesBack) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = F16ToF32(static_cast<uint16_t>(h));
    const double value = HalfValue(static_cast<uint16_t>(h));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f));
      EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(f))));
      continue;
    }
    ASSERT_EQ(f, value) << h;
    ASSERT_EQ(F32ToF16(f), h);
  }
}

TEST(FloatConvertTest, RoundsToTheNearestHalfTiesToEven) {
  for (uint32_t h = 0; h < 0x7bff; ++h) {  // between neighbours h and h + 1
    const float low = F16ToF32(static_cast<uint16_t>(h));
    const float high = F16ToF32(static_cast<uint16_t>(h + 1));
    const float middle = low + (high - low) / 2;  // exact in f32
    ASSERT_EQ(F32ToF16(middle), h + (h & 1)) << h;
    ASSERT_EQ(F32ToF16(std::nextafter(middle, 0.0f)), h);
    ASSERT_EQ(F32ToF16(std::nextafter(middle, INFINITY)), h + 1);
    ASSERT_EQ(F32ToF16(-middle), (h + (h & 1)) | 0x8000);
  }
  EXPECT_EQ(F32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00);
  EXPECT_EQ(F32ToF16(1e30f), 0x7c00);
  EXPECT_EQ(F32ToF16(-INFINITY), 0xfc00);
  EXPECT_EQ(F32ToF16(1e-40f), 0);
}

#if defined(__x86_64__)
__attribute__((target("f16c"))) uint16_t Hardware(float f) {
  typedef float V4 __attribute__((vector_size(16)));
  const auto h = __builtin_ia32_vcvtps2ph(V4{f, 0, 0, 0}, 0);
  return static_cast<uint16_t>(h[0]);
}

TEST(FloatConvertTest, EqualsTheProcessorBitForBit) {
  if (!__builtin_cpu_supports("f16c")) GTEST_SKIP() << "no F16C here";
  std::mt19937 rng(static_cast<uint32_t>(dovetail::testing::TestSeed()));
  for (int i = 0; i < 2000000; ++i) {
    const float f = std::bit_cast<float>(static_cast<uint32_t>(rng()));
    ASSERT_EQ(F32ToF16(f), Hardware(f)) << std::bit_cast<uint32_t>(f);
  }
}
#endif

TEST(FloatConvertTest, Bf16RoundsToNearestEven) {
  EXPECT_EQ(Bf16ToF32(F32ToBf16(1.5f)), 1.5f);
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, even below
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);  // tie, even above
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(F32ToBf16(std::bit_cast<float>(0x00008001u)), 1);  // subnormal
  EXPECT_EQ(F32ToBf16(3.4e38f), 0x7f80);
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(NAN))));
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace dovetail
