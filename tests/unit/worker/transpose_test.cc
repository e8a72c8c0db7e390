#include "worker/transpose.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/format.h"
#include "model/memory_plan.h"
#include "tests/testing/test_data.h"
#include "tests/unit/kernels/random_inputs.h"

namespace dovetail::worker {
namespace {

TEST(TransposeRows, HoldsTheSameNumbersOfEveryType) {
  kernels::testing::Rng rng(testing::TestSeed());
  const int64_t rows = 6, cols = 512;
  for (const WeightType type : SupportedWeightTypes()) {
    const std::vector<uint8_t> src = kernels::testing::RandomWeights(rng, type, rows, cols);
    const WeightType turned_type = model::TransposedType(type);
    EXPECT_EQ(turned_type, IsFloat(type) ? type : WeightType::kF32);
    const std::vector<uint8_t> turned =
        TransposeRows(*kernels::FindTable(kernels::Isa::kScalar), type, src.data(), rows, cols);
    ASSERT_EQ(turned.size(), static_cast<size_t>(StoredBytes(turned_type, rows * cols)));
    std::vector<float> expected(cols), column(rows);
    for (int64_t r = 0; r < rows; ++r) {
      kernels::DequantizeRow(type, src.data() + r * StoredBytes(type, cols), cols, expected.data());
      for (int64_t c = 0; c < cols; ++c) {
        kernels::DequantizeRow(turned_type, turned.data() + c * StoredBytes(turned_type, rows),
                               rows, column.data());
        ASSERT_TRUE(kernels::testing::SameBits(column[r], expected[c])) << InfoOf(type).name;
      }
    }
  }
}

}  // namespace
}  // namespace dovetail::worker
