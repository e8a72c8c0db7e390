// What GPU workers do with whole rows that no table of a processor has in that form: the best
// column of each, copies by index, a look for what is not finite, rows and their forms in one
// launch.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernel_table.h"
#include "tests/testing/device_under_test.h"
#include "tests/testing/random_values.h"
#include "tests/testing/test_data.h"

namespace dovetail::worker {
namespace {

using kernels::testing::DeviceUnderTest;
using kernels::testing::RunOnDevice;

using testing::Normal;
using testing::Rng;
using testing::SameBits;
using testing::Uniform;

TEST(DeviceRows, TheBestColumnIsTheHosts) {
  Rng rng(testing::TestSeed());
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int32_t cols : {1, 5, 31, 32, 511, 512, 513, 3000, 5001, 20004}) {
    const int32_t rows = 6;
    const int64_t stride =
        cols + (cols % 4 == 0 ? 4 : 2);  // that columns are loaded in fours, or not
    std::vector<float> x = Normal(rng, rows * stride);
    const auto row = [&](int i) { return x.begin() + i * stride; };
    std::fill(row(1), row(1) + cols, -kInfinity);
    for (int i = 0; i < 3; ++i)
      row(2)[Uniform(rng, 0, cols - 1)] = 100.0f;  // or one of them thrice
    row(3)[Uniform(rng, 0, cols - 1)] = NAN;
    row(3)[Uniform(rng, 0, cols - 1)] = kInfinity;
    std::fill(row(4), row(4) + cols, 0.0f);
    row(4)[cols - 1] = -0.0f;
    row(0)[cols] = kInfinity;  // between rows
    std::vector<int32_t> best(rows, 77);
    RunOnDevice([&](void* stream) {
      DeviceUnderTest().argmax(x.data(), stride, rows, cols, best.data(), stream);
    });
    for (int i = 0; i < rows; ++i) {
      const float* const at = x.data() + i * stride;
      EXPECT_EQ(best[i], kernels::FindTable(kernels::Isa::kScalar)->argmax(at, cols))
          << "row " << i << " of " << cols << " columns";
    }
  }
}

void ExpectRowsCopiedAndLookedAt(Rng& rng, int32_t cols, int32_t from_stride, int32_t to_stride) {
  const int32_t rows = 7;
  std::vector<float> from = Normal(rng, rows * from_stride);
  for (bool indexed : {false, true}) {
    const std::vector<int32_t> index = {6, 0, 0, 3, 5, 1, 2};
    std::vector<float> to(rows * to_stride, 7.0f);
    const kernels::CopyRowsArgs args = {.from = from.data(),
                                        .from_stride = from_stride,
                                        .index = indexed ? index.data() : nullptr,
                                        .to = to.data(),
                                        .to_stride = to_stride,
                                        .cols = cols};
    RunOnDevice([&](void* stream) { DeviceUnderTest().copy_rows(args, 0, rows, stream); });
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < to_stride; ++i) {
        const int source = indexed ? index[row] : row;
        ASSERT_EQ(to[row * to_stride + i], i < cols ? from[source * from_stride + i] : 7.0f);
      }
    }
  }
  const auto finite = [&] {
    int32_t flag = 0;
    RunOnDevice([&](void* stream) {
      DeviceUnderTest().check_finite(from.data(), from_stride, rows, cols, &flag, stream);
    });
    return flag == 0;
  };
  from[cols] = NAN;  // between rows
  EXPECT_TRUE(finite());
  from[(rows - 1) * from_stride + cols - 1] = -INFINITY;
  EXPECT_FALSE(finite());
}

TEST(DeviceRows, RowsAreCopiedAndLookedAt) {
  Rng rng(testing::TestSeed());
  for (const auto& [cols, from_stride, to_stride] :
       {std::array{33, 40, 50}, {32, 40, 52}, {32, 41, 52}, {640, 644, 652}, {641, 644, 652}}) {
    ExpectRowsCopiedAndLookedAt(rng, cols, from_stride, to_stride);
  }
}

// A form of rows, and all that it is made of.
struct Form {
  std::vector<int8_t> q;
  std::vector<float> d;
  std::vector<int16_t> bsum;
  kernels::Activations view = {};

  Form(const float* f32, int64_t rows, int32_t cols, int32_t block)
      : q(rows * cols), d(rows * cols / block), bsum(rows * cols / 16) {
    view = {f32, cols, q.data(), cols, d.data(), cols / block, bsum.data(), cols / 16, cols, block};
  }
  bool operator==(const Form& other) const {
    return q == other.q && SameBits(d, other.d) && bsum == other.bsum;
  }
};

// Rows that one launch makes and quantises are those that two make, short and long, of all blocks.
TEST(DeviceRows, FormsAreThoseOfLaunchesOfTheirOwn) {
  Rng rng(testing::TestSeed());
  const int64_t rows = 3;
  for (int32_t cols : {256, 768, 3584, 17408}) {
    for (int32_t block : {16, 32, 256}) {
      const std::vector<float> x = Normal(rng, rows * cols), up = Normal(rng, rows * cols);
      const std::vector<float> weight = Normal(rng, cols);
      std::vector<float> one(rows * cols), two(rows * cols);
      Form of_one(one.data(), rows, cols, block), of_two(two.data(), rows, cols, block);
      const auto norm = [&](float* y) {
        return kernels::RmsNormArgs{.x = x.data(),
                                    .x_stride = cols,
                                    .weight = weight.data(),
                                    .y = y,
                                    .y_stride = cols,
                                    .cols = cols,
                                    .eps = 1e-6f};
      };
      RunOnDevice([&](void* stream) {
        DeviceUnderTest().rms_norm_quantize(norm(one.data()), of_one.view, 0, rows, stream);
        DeviceUnderTest().rms_norm(norm(two.data()), 0, rows, stream);
        DeviceUnderTest().quantize({of_two.view}, 0, rows, stream);
      });
      EXPECT_TRUE(SameBits(one, two) && of_one == of_two) << cols << ", norm, " << block;
      const auto gated = [&](float* y) {
        return kernels::GatedArgs{x.data(), up.data(), cols, y, cols, cols};
      };
      RunOnDevice([&](void* stream) {
        DeviceUnderTest().swiglu_oai_quantize(gated(one.data()), of_one.view, 0, rows, stream);
        DeviceUnderTest().swiglu_oai(gated(two.data()), 0, rows, stream);
        DeviceUnderTest().quantize({of_two.view}, 0, rows, stream);
      });
      EXPECT_TRUE(SameBits(one, two) && of_one == of_two) << cols << ", gated, " << block;
    }
  }
}

}  // namespace
}  // namespace dovetail::worker
