#include "base/philox.h"

#include <vector>

#include "gmock/gmock.h"

namespace dovetail {
namespace {

using ::testing::ElementsAre;

// Known answers of Random123 1.09 (kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, KnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(
      Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
      ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(Philox, UniformUsesTheFirstTwoWords) {
  // 0x6627e8d5e169c58d >> 11, over 2^53.
  EXPECT_EQ(PhiloxUniform(0, 0, 0), (0x6627e8d5e169c58dULL >> 11) * 0x1.0p-53);
}

TEST(Philox, UniformIsUniform) {
  std::vector<int> histogram(16, 0);
  const int draws = 16000;
  for (int i = 0; i < draws; ++i) {
    const double u = PhiloxUniform(7, 1, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++histogram[static_cast<int>(u * 16)];
  }
  for (int count : histogram) EXPECT_NEAR(count, draws / 16, 160);  // five standard deviations
}

TEST(Philox, EveryArgumentMatters) {
  const double u = PhiloxUniform(1, 2, 3);
  EXPECT_NE(u, PhiloxUniform(uint64_t{1} << 32 | 1, 2, 3));
  EXPECT_NE(u, PhiloxUniform(2, 2, 3));
  EXPECT_NE(u, PhiloxUniform(1, 3, 3));
  EXPECT_NE(u, PhiloxUniform(1, 2, 4));
}

}  // namespace
}  // namespace dovetail
