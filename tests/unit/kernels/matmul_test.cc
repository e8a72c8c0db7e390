// Products and activation quantisation: every table against the scalar reference, byte for byte,
// and the reference against f64 arithmetic on dequantised weights.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/packed_layout.h"
#include "kernels/in_place.h"
#include "kernels/kernel_table.h"
#include "kernels/quant/format.h"
#include "tests/testing/kernel_tables.h"
#include "tests/testing/test_data.h"
#include "tests/unit/kernels/random_inputs.h"

namespace dovetail::kernels {
namespace {

using namespace testing;  // NOLINT: kernels' own test helpers

struct Quantized {
  std::vector<float> f32;
  Guarded<int8_t> q;
  Guarded<float> d;
  Guarded<int16_t> bsum;
  Activations view;

  Quantized(std::vector<float> values, int64_t rows, int32_t cols, int32_t block)
      : f32(std::move(values)),
        q(block == 0 ? 0 : rows * cols),
        d(block == 0 ? 0 : rows * cols / block),
        bsum(block == 0 ? 0 : rows * cols / 16) {
    view = {f32.data(),  cols,      q.data(), cols, d.data(), block == 0 ? 0 : cols / block,
            bsum.data(), cols / 16, cols,     block};
  }
};

void Quantize(const KernelTable& table, Rng& rng, int64_t rows, Quantized* x) {
  if (x->view.block == 0) return;
  const QuantizeArgs args = {x->view};
  ForRandomSlices(rng, rows, [&](int64_t b, int64_t e) { table.quantize(args, b, e); });
}

TEST(QuantizeTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (const KernelTable* table : TablesUnderTest()) {
    for (int32_t block : {16, 32, 256}) {
      for (int trial = 0; trial < 40; ++trial) {
        const int32_t cols = block * static_cast<int32_t>(Uniform(rng, 1, block < 256 ? 37 : 5));
        const int64_t rows = Uniform(rng, 1, 9);
        const int64_t shift = trial % 3 == 0 ? 1 : 0;  // rows that begin anywhere
        std::vector<float> values = RandomFloats(rng, rows * cols + shift);
        const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-31f, 1e-29f};
        values[Uniform(rng, 0, rows * cols - 1)] = odd[trial % 6];
        if (trial % 4 == 0) {  // a block on either side of the smallest maximum
          const float largest = trial % 8 == 0 ? 1e-30f : std::nextafter(1e-30f, 0.0f);
          std::fill(values.begin(), values.begin() + block, largest);
        }
        Quantized expected(values, rows, cols, block), actual(values, rows, cols, block);
        expected.view.f32 += shift;
        actual.view.f32 += shift;
        FindTable(Isa::kScalar)->quantize({expected.view}, 0, rows);
        Quantize(*table, rng, rows, &actual);
        ASSERT_EQ(std::memcmp(expected.q.data(), actual.q.data(), rows * cols), 0) << table->name;
        ASSERT_EQ(std::memcmp(expected.bsum.data(), actual.bsum.data(), rows * cols / 8), 0);
        ExpectSameBits(expected.d.data(), actual.d.data(), expected.d.size(), table->name);
        actual.q.ExpectGuardsIntact();
        actual.d.ExpectGuardsIntact();
        actual.bsum.ExpectGuardsIntact();
      }
    }
  }
}

TEST(QuantizeTest, NonFiniteInputMakesItsBlockNanAndNoOther) {
  for (const KernelTable* table : TablesUnderTest()) {
    for (float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> values(96, 1.0f);
      values[40] = bad;
      Quantized x(values, 1, 96, 32);
      table->quantize({x.view}, 0, 1);
      EXPECT_TRUE(std::isnan(x.d[1])) << table->name;
      EXPECT_EQ(x.d[0], 1.0f / 127.0f);
      EXPECT_EQ(x.d[2], 1.0f / 127.0f);
      EXPECT_EQ(x.q[0], 127);
      EXPECT_EQ(x.bsum[0], 16 * 127);
    }
  }
}

struct Problem {
  WeightType type;
  int32_t n, k;
  int64_t rows;
  bool accumulate;
  bool bias = false;
  float scale = 1.0f;
};

std::string Describe(const KernelTable& table, const Problem& p) {
  return absl::StrCat(table.name, " ", absl::string_view(InfoOf(p.type).name), " n=", p.n,
                      " k=", p.k, " rows=", p.rows, p.accumulate ? " accumulate" : "",
                      p.bias ? " bias" : "", " scale=", p.scale);
}

// y of `table` for the same weights and activations, in random slices of panels.
std::vector<float> Multiply(const KernelTable& table, Rng& rng, const Problem& p,
                            const std::vector<uint8_t>& weights, const std::vector<float>& values,
                            const std::vector<float>& y_before) {
  Guarded<uint8_t> packed(PackedBytes(table.layout, p.type, p.n, p.k));
  for (int64_t row = 0; row < p.n;) {  // packed in pieces, as threads do
    const int64_t end = std::min<int64_t>(p.n, row + kPanelRows * Uniform(rng, 1, 3));
    table.pack(p.type, weights.data(), p.n, p.k, row, end, packed.data());
    row = end;
  }
  packed.ExpectGuardsIntact();
  Quantized x(values, p.rows, p.k, ActivationBlock(p.type));
  Quantize(table, rng, p.rows, &x);
  const int64_t stride = p.n + 3;
  Guarded<float> y(p.rows * stride);
  std::memcpy(y.data(), y_before.data(), y_before.size() * sizeof(float));
  const MatmulArgs args = {packed.data(), p.type,
                           p.n,           p.k,
                           x.view,        static_cast<int32_t>(p.rows),
                           y.data(),      stride,
                           p.accumulate,  p.bias ? values.data() : nullptr,
                           p.scale};
  ForRandomSlices(rng, (p.n + kPanelRows - 1) / kPanelRows,
                  [&](int64_t b, int64_t e) { table.matmul(args, b, e); });
  y.ExpectGuardsIntact();
  return {y.data(), y.data() + y.size()};
}

void ExpectTablesAgree(Rng& rng, const Problem& p) {
  const std::vector<uint8_t> weights = RandomWeights(rng, p.type, p.n, p.k);
  const std::vector<float> values = RandomFloats(rng, p.rows * p.k);
  const std::vector<float> before = RandomFloats(rng, p.rows * (p.n + 3));
  const std::vector<float> expected =
      Multiply(*FindTable(Isa::kScalar), rng, p, weights, values, before);
  bool some_not_zero = false;
  for (float f : expected) some_not_zero = some_not_zero || f != 0;
  ASSERT_TRUE(some_not_zero);
  for (const KernelTable* table : ProductTablesUnderTest()) {
    const std::vector<float> actual = Multiply(*table, rng, p, weights, values, before);
    ExpectSameBits(expected.data(), actual.data(), static_cast<int64_t>(expected.size()),
                   Describe(*table, p));
  }
}

// Rows as a file has them, at an address that is aligned to nothing, in random slices of panels.
std::vector<float> MultiplyInPlace(const KernelTable& table, Rng& rng, const Problem& p,
                                   const std::vector<uint8_t>& weights,
                                   const std::vector<float>& values,
                                   const std::vector<float>& y_before) {
  // GGUF aligns tensors to 32 bytes, and rows only to their elements.
  const int64_t shift = IsFloat(p.type) ? 4 : Uniform(rng, 1, 63);
  Guarded<uint8_t> stored(static_cast<int64_t>(weights.size()) + shift);
  std::memcpy(stored.data() + shift, weights.data(), weights.size());
  Quantized x(values, p.rows, p.k, ActivationBlock(p.type));
  Quantize(table, rng, p.rows, &x);
  const int64_t stride = p.n + 3;
  Guarded<float> y(p.rows * stride);
  std::memcpy(y.data(), y_before.data(), y_before.size() * sizeof(float));
  const MatmulArgs args = {.w = stored.data() + shift,
                           .type = p.type,
                           .n = p.n,
                           .k = p.k,
                           .x = x.view,
                           .rows = static_cast<int32_t>(p.rows),
                           .y = y.data(),
                           .y_stride = stride,
                           .accumulate = p.accumulate,
                           .bias = p.bias ? values.data() : nullptr,
                           .scale = p.scale};
  Guarded<uint8_t> scratch(InPlaceScratchBytes(p.k));
  ForRandomSlices(rng, (p.n + kPanelRows - 1) / kPanelRows,
                  [&](int64_t b, int64_t e) { MatmulInPlace(table, args, b, e, scratch.data()); });
  y.ExpectGuardsIntact();
  scratch.ExpectGuardsIntact();
  return {y.data(), y.data() + y.size()};
}

class MatmulTest : public ::testing::TestWithParam<WeightType> {};

TEST_P(MatmulTest, EveryTableGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  const int32_t unit = IsFloat(GetParam()) ? 1 : InfoOf(GetParam()).block_elements;
  for (int trial = 0; trial < 24; ++trial) {
    Problem p = {GetParam(), static_cast<int32_t>(Uniform(rng, 1, 70)), 0, Uniform(rng, 1, 67),
                 trial % 3 == 0};
    p.k = unit * static_cast<int32_t>(unit == 256  ? Uniform(rng, 1, 4)
                                      : unit >= 32 ? Uniform(rng, 1, 41)
                                                   : Uniform(rng, 1, 300));
    if (trial % 5 == 1) p.scale = 0.3f;
    if (trial < 8) p.rows = trial + 1;
    if (trial == 8) p.rows = 130;                    // several token groups
    p.bias = trial % 2 == 0 && p.n <= p.rows * p.k;  // any numbers do: the activations
    ExpectTablesAgree(rng, p);
    if (HasFatalFailure()) return;
  }
}

// Every kernel of every table in little time: few rows, tiles of vectors, tiles of AMX with a last
// one that is not full; a last panel that is not full. What an emulated processor runs
// (emulated_avx2_test.sh).
TEST_P(MatmulTest, EveryKernelOnce) {
  Rng rng(dovetail::testing::TestSeed());
  const int32_t k = 2 * std::max(InfoOf(GetParam()).block_elements, 32);
  for (int64_t rows : {1, 2, 3, 5, 16, 19}) {  // all of them even if one fails
    ExpectTablesAgree(rng, {GetParam(), /*n=*/41, k, rows, /*accumulate=*/rows == 5});
  }
}

TEST_P(MatmulTest, LongRowsGiveTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  for (int64_t rows : {1, 2, 7, 67}) {  // the last ones in several groups of tokens
    ExpectTablesAgree(rng, {GetParam(), /*n=*/19, /*k=*/18944, rows, /*accumulate=*/false});
    if (HasFatalFailure()) return;
  }
}

TEST_P(MatmulTest, InPlaceGivesTheReferenceBytes) {
  Rng rng(dovetail::testing::TestSeed());
  const int32_t unit = IsFloat(GetParam()) ? 1 : InfoOf(GetParam()).block_elements;
  for (int trial = 0; trial < 16; ++trial) {
    Problem p = {GetParam(), static_cast<int32_t>(Uniform(rng, 1, 90)),
                 unit * static_cast<int32_t>(Uniform(rng, 1, unit == 256 ? 4 : 40)),
                 trial < 8 ? trial + 1 : Uniform(rng, 9, 70), trial % 3 == 0};
    if (trial % 5 == 1) p.scale = 0.3f;
    p.bias = trial % 2 == 0 && p.n <= p.rows * p.k;
    const std::vector<uint8_t> weights = RandomWeights(rng, p.type, p.n, p.k);
    const std::vector<float> values = RandomFloats(rng, p.rows * p.k);
    const std::vector<float> before = RandomFloats(rng, p.rows * (p.n + 3));
    const std::vector<float> expected =
        Multiply(*FindTable(Isa::kScalar), rng, p, weights, values, before);
    std::vector<const KernelTable*> tables = ProductTablesUnderTest();
    tables.push_back(FindTable(Isa::kScalar));
    for (const KernelTable* table : tables) {
      const std::vector<float> actual = MultiplyInPlace(*table, rng, p, weights, values, before);
      ExpectSameBits(expected.data(), actual.data(), static_cast<int64_t>(expected.size()),
                     "in place " + Describe(*table, p));
    }
    if (HasFatalFailure()) return;
  }
}

TEST_P(MatmulTest, ExtremeWeightsStayExact) {
  // Every quant, scale and activation at its largest magnitude: no intermediate may saturate.
  const WeightType type = GetParam();
  if (IsFloat(type)) GTEST_SKIP() << "only integer products can saturate";
  const int32_t k = 512, n = 48;
  // Few rows, several and many: they have kernels of their own.
  for (int rows_and_fill : {0x300, 0x3ff, 0x380, 0x37f, 0x388, 0xd00, 0xdff, 0xd80, 0xd7f, 0xd88,
                            0x1200, 0x12ff, 0x1280, 0x127f, 0x1288}) {
    const uint8_t fill = static_cast<uint8_t>(rows_and_fill & 255);
    const int32_t rows = rows_and_fill >> 8;
    std::vector<uint8_t> weights(n * StoredBytes(type, k), fill);
    const uint16_t one = F32ToF16(1.0f);
    const int64_t block_bytes = InfoOf(type).block_bytes;
    for (size_t i = 0; i < weights.size(); i += block_bytes) {
      PutScales(type, one, one, &weights[i]);
    }
    for (float sign : {1.0f, -1.0f}) {
      const std::vector<float> values(rows * k, sign), before(rows * (n + 3), 0.0f);
      Rng rng(1);
      const Problem p = {type, n, k, rows, false};
      const auto expected = Multiply(*FindTable(Isa::kScalar), rng, p, weights, values, before);
      for (const KernelTable* table : ProductTablesUnderTest()) {
        const auto actual = Multiply(*table, rng, p, weights, values, before);
        ExpectSameBits(expected.data(), actual.data(), static_cast<int64_t>(expected.size()),
                       Describe(*table, p));
      }
    }
  }
}

// Activations of one sign and about one size make sums of sub-blocks that floats do not hold: a
// product that sums floats must notice it.
TEST_P(MatmulTest, LargeSumsOfOneSignStayExact) {
  if (IsFloat(GetParam())) GTEST_SKIP() << "only integer products are exact";
  Rng rng(dovetail::testing::TestSeed());
  for (int32_t rows : {1, 3, 4, 13}) {
    const Problem p = {GetParam(), 48, 768, rows, false};
    const std::vector<uint8_t> weights = RandomWeights(rng, p.type, p.n, p.k);
    std::vector<float> values(rows * p.k);
    for (float& v : values) v = 1.0f + 0.1f * std::abs(Normal(rng));
    const std::vector<float> before(rows * (p.n + 3), 0.0f);
    const auto expected = Multiply(*FindTable(Isa::kScalar), rng, p, weights, values, before);
    for (const KernelTable* table : ProductTablesUnderTest()) {
      const auto actual = Multiply(*table, rng, p, weights, values, before);
      ExpectSameBits(expected.data(), actual.data(), static_cast<int64_t>(expected.size()),
                     Describe(*table, p));
    }
  }
}

// |product - f64 product| for activations rounded to int8: each activation is off by at most half a
// step of its block (amax / 254) plus rounding, so the error is bounded by the sum of |w| * step;
// the f32 sums add 2^-24 of the sum of |w x| per fma.
TEST_P(MatmulTest, ReferenceIsWithinTheDerivedToleranceOfF64) {
  const WeightType type = GetParam();
  Rng rng(dovetail::testing::TestSeed());
  const int32_t k = 1024, n = 8, rows = 4;
  const std::vector<uint8_t> weights = RandomWeights(rng, type, n, k);
  std::vector<float> values(rows * k);
  for (float& v : values) v = Normal(rng);
  const Problem p = {type, n, k, rows, false};
  const std::vector<float> y = Multiply(*FindTable(Isa::kScalar), rng, p, weights, values,
                                        std::vector<float>(rows * (n + 3), 0.0f));
  const int32_t block = ActivationBlock(type);
  std::vector<float> w(k);
  double worst = 0;
  for (int i = 0; i < n; ++i) {
    DequantizeRow(type, weights.data() + i * StoredBytes(type, k), k, w.data());
    for (int t = 0; t < rows; ++t) {
      const float* x = &values[t * k];
      double exact = 0, magnitude = 0, rounding = 0;
      for (int j = 0; j < k; ++j) {
        exact += double{w[j]} * x[j];
        magnitude += std::abs(double{w[j]} * x[j]);
        if (block == 0) continue;
        float amax = 0;
        const int first = j / block * block;
        for (int b = first; b < first + block; ++b) amax = std::max(amax, std::abs(x[b]));
        rounding += std::abs(double{w[j]}) * amax / 254 * 1.001;
      }
      const double error = std::abs(y[t * (n + 3) + i] - exact);
      // Minimums can cancel large products inside a block, hence the generous float term.
      ASSERT_LE(error, rounding + magnitude * 1e-4) << "row " << i << " token " << t;
      worst = std::max(worst, error / (rounding + magnitude * 1e-4));
    }
  }
  EXPECT_GT(worst, 0) << "an error of exactly zero everywhere means that nothing was compared";
}

// What files may hold though no quantiser writes it: infinite, NaN and negative scales, any
// exponent.
TEST_P(MatmulTest, OddScalesGiveTheReferenceBytes) {
  const WeightType type = GetParam();
  if (IsFloat(type)) GTEST_SKIP() << "no scales";
  Rng rng(dovetail::testing::TestSeed());
  const int32_t n = 32, k = 512;
  const uint16_t halves[] = {0x7c00, 0xfc00, 0x7e00, 0x8000, 0x8001, 0x0001, 0x7bff, 0xbc00};
  for (int trial = 0; trial < 8; ++trial) {
    const int32_t rows = trial % 2 == 0 ? 3 : 21;
    std::vector<uint8_t> weights = RandomWeights(rng, type, n, k);
    const int64_t block_bytes = InfoOf(type).block_bytes;
    for (size_t i = 0; i < weights.size(); i += block_bytes) {
      if (Uniform(rng, 0, 3) != 0) continue;
      PutScales(type, halves[Uniform(rng, 0, 7)], halves[trial], &weights[i]);
      if (type == WeightType::kMXFP4) weights[i] = static_cast<uint8_t>(rng());
    }
    const std::vector<float> values = RandomFloats(rng, rows * k), before(rows * (n + 3), 0.0f);
    const Problem p = {type, n, k, rows, false};
    const auto expected = Multiply(*FindTable(Isa::kScalar), rng, p, weights, values, before);
    for (const KernelTable* table : ProductTablesUnderTest()) {
      const auto actual = Multiply(*table, rng, p, weights, values, before);
      ExpectSameBits(expected.data(), actual.data(), static_cast<int64_t>(expected.size()),
                     Describe(*table, p));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulTest,
                         ::testing::ValuesIn(SupportedWeightTypes().begin(),
                                             SupportedWeightTypes().end()),
                         [](const auto& info) { return std::string(InfoOf(info.param).name); });

}  // namespace
}  // namespace dovetail::kernels
