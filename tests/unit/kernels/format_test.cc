// The canonical form of each weight type: against published vectors and against independent
// formulas.
#include "kernels/quant/format.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/packed_layout.h"
#include "kernels/kernel_table.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/codebooks.h"
#include "tests/testing/kernel_tables.h"
#include "tests/testing/test_data.h"
#include "tests/unit/kernels/random_inputs.h"

namespace dovetail::kernels {
namespace {

using namespace testing;  // NOLINT: kernels' own test helpers

struct VectorFile {
  const char* name;
  WeightType type;
};

// Root mean square and largest error of what we decode against what was quantised, in the
// quantiser's own steps: about 0.29 and 0.5 (clipped elements more), while any wrong order of
// nibbles, scale or sign gives several steps.
void CompareWithInput(const VectorFile& file, const std::string& input, const std::string& blocks) {
  const int64_t n = static_cast<int64_t>(input.size() / sizeof(float));
  ASSERT_EQ(static_cast<int64_t>(blocks.size()), StoredBytes(file.type, n));
  std::vector<float> x(n), y(n);
  std::memcpy(x.data(), input.data(), input.size());
  const auto* raw = reinterpret_cast<const uint8_t*>(blocks.data());
  DequantizeRow(file.type, raw, n, y.data());
  const QuantFormat& format = *FindQuantFormat(file.type);
  // IQ4's codes are 8 to 24 apart.
  const double unit = file.type == WeightType::kIQ4_NL ? 14.0 : 1.0;
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    CanonicalBlock block;
    format.decode(raw + i / format.block * InfoOf(file.type).block_bytes, &block);
    const int sub = static_cast<int>(i % format.block / format.sub_block);
    const double step = unit * std::abs(block.d * static_cast<float>(block.scale[sub]));
    const double error = std::abs(double{x[i]} - y[i]) / step;
    ASSERT_LT(error, 2.5) << file.name << " element " << i;
    squares += error * error;
  }
  EXPECT_LT(std::sqrt(squares / static_cast<double>(n)), 0.45) << file.name;
  EXPECT_GT(squares, 0);
}

TEST(FormatTest, DecodesPublishedVectors) {
  const VectorFile files[] = {{"q4_0_64", WeightType::kQ4_0},  {"q4_1_64", WeightType::kQ4_1},
                              {"q5_0_64", WeightType::kQ5_0},  {"q5_1_64", WeightType::kQ5_1},
                              {"q8_0_64", WeightType::kQ8_0},  {"iq4_nl_64", WeightType::kIQ4_NL},
                              {"q2_k_512", WeightType::kQ2_K}, {"q3_k_512", WeightType::kQ3_K},
                              {"q5_k_512", WeightType::kQ5_K}, {"q4_k_512", WeightType::kQ4_K},
                              {"q6_k_512", WeightType::kQ6_K}};
  for (const VectorFile& file : files) {
    for (const char* variant : {"noim", "im"}) {
      const std::string base = absl::StrCat("quant-vectors/", file.name, "_", variant);
      DT_REQUIRE_DATA(input_path, base + "_input.bin");
      DT_REQUIRE_DATA(blocks_path, base + "_expected.bin");
      CompareWithInput(file, dovetail::testing::ReadFileOrDie(input_path),
                       dovetail::testing::ReadFileOrDie(blocks_path));
    }
  }
}

float HalfAt(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return F16ToF32(h);
}

int FifthBit(const uint8_t* qh, const uint8_t* qs, int i) {
  uint32_t bits;
  std::memcpy(&bits, qh, sizeof(bits));
  return (i < 16 ? qs[i] & 15 : qs[i - 16] >> 4) + static_cast<int>(bits >> i & 1) * 16;
}

constexpr float kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                            1,    13,   25,  38,  53,  69,  89,  113};
constexpr float kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Types without a formula here are compared with the `gguf` package alone
// (tests/e2e/dequantize_oracle.py).
bool HasFormula(WeightType type) {
  using T = WeightType;
  const T types[] = {T::kQ4_0, T::kQ4_1, T::kQ5_0,   T::kQ5_1,  T::kQ8_0,  T::kQ2_K,
                     T::kQ4_K, T::kQ6_K, T::kIQ4_NL, T::kMXFP4, T::kNVFP4, T::kTQ2_0};
  return std::find(std::begin(types), std::end(types), type) != std::end(types);
}

// The formulas of the format's description, element by element, with the operations in the order of
// the `gguf` package (multiply, multiply, subtract).
float DirectElement(WeightType type, const uint8_t* b, int i) {
  switch (type) {
    case WeightType::kQ4_0:
      return HalfAt(b) * static_cast<float>((i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4) - 8);
    case WeightType::kQ4_1: {
      const float product =
          HalfAt(b) * static_cast<float>(i < 16 ? b[4 + i] & 15 : b[4 + i - 16] >> 4);
      return product + HalfAt(b + 2);
    }
    case WeightType::kQ5_0:
      return HalfAt(b) * static_cast<float>(FifthBit(b + 2, b + 6, i) - 16);
    case WeightType::kQ5_1: {
      const float product = HalfAt(b) * static_cast<float>(FifthBit(b + 4, b + 8, i));
      return product + HalfAt(b + 2);
    }
    case WeightType::kIQ4_NL:
      return HalfAt(b) * kIq4[i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4];
    case WeightType::kMXFP4:
      return static_cast<float>(std::ldexp(1.0, b[0] - 128)) *
             kFp4[i < 16 ? b[1 + i] & 15 : b[1 + i - 16] >> 4];
    case WeightType::kNVFP4: {
      const int s = i / 16, exponent = b[s] >> 3 & 15, mantissa = b[s] & 7;
      const double d =
          exponent == 0 ? std::ldexp(mantissa, -10) : std::ldexp(8 + mantissa, exponent - 11);
      const uint8_t byte = b[4 + 8 * s + i % 8];
      return static_cast<float>(b[s] == 0x7f ? 0.0 : d) * kFp4[i % 16 < 8 ? byte & 15 : byte >> 4];
    }
    case WeightType::kQ2_K: {
      const int q = b[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
      const uint8_t scales = b[i / 16];
      return HalfAt(b + 80) * static_cast<float>(scales & 15) * static_cast<float>(q) -
             HalfAt(b + 82) * static_cast<float>(scales >> 4);
    }
    case WeightType::kTQ2_0:
      return HalfAt(b + 64) *
             static_cast<float>((b[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) - 1);
    case WeightType::kQ8_0:
      return HalfAt(b) * static_cast<float>(static_cast<int8_t>(b[2 + i]));
    case WeightType::kQ4_K: {
      const uint8_t* s = b + 4;
      const int j = i / 32;
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
      const int min = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
      const uint8_t byte = b[16 + 32 * (j / 2) + i % 32];
      const int q = j % 2 == 0 ? byte & 15 : byte >> 4;
      return HalfAt(b) * static_cast<float>(scale) * static_cast<float>(q) -
             HalfAt(b + 2) * static_cast<float>(min);
    }
    case WeightType::kQ6_K: {
      const int half = i / 128, l = i % 32;
      const uint8_t* ql = b + 64 * half;
      const uint8_t qh = b[128 + 32 * half + l];
      int q = 0;
      switch (i % 128 / 32) {
        case 0:
          q = (ql[l] & 15) | (qh & 3) << 4;
          break;
        case 1:
          q = (ql[l + 32] & 15) | (qh >> 2 & 3) << 4;
          break;
        case 2:
          q = ql[l] >> 4 | (qh >> 4 & 3) << 4;
          break;
        default:
          q = ql[l + 32] >> 4 | (qh >> 6 & 3) << 4;
      }
      const int scale = static_cast<int8_t>(b[192 + i / 16]);
      return HalfAt(b + 208) * static_cast<float>(scale) * static_cast<float>(q - 32);
    }
    default:
      return NAN;
  }
}

TEST(FormatTest, DequantizeIsTheFormulaBitForBit) {
  Rng rng(dovetail::testing::TestSeed());
  for (WeightType type : SupportedWeightTypes()) {
    if (!HasFormula(type)) continue;
    const WeightTypeInfo& info = InfoOf(type);
    const int64_t k = 8 * info.block_elements;
    const std::vector<uint8_t> row = RandomWeights(rng, type, 1, k);
    std::vector<float> y(k);
    DequantizeRow(type, row.data(), k, y.data());
    for (int64_t i = 0; i < k; ++i) {
      const uint8_t* block = row.data() + i / info.block_elements * info.block_bytes;
      ASSERT_EQ(std::bit_cast<uint32_t>(y[i]),
                std::bit_cast<uint32_t>(
                    DirectElement(type, block, static_cast<int>(i % info.block_elements))))
          << std::string(info.name) << " " << i;
    }
  }
}

TEST(FormatTest, ExtremeExponentsOfFp4) {
  uint8_t block[17] = {};
  block[1] = 0x71;  // codes 1 and 7: 1 and 12
  float y[32];
  const auto dequantize = [&](uint8_t e) {
    block[0] = e;
    DequantizeRow(WeightType::kMXFP4, block, 32, y);
  };
  dequantize(0);
  EXPECT_EQ(y[0], 0x1p-128f);
  EXPECT_EQ(y[16], 12 * 0x1p-128f);
  dequantize(1);
  EXPECT_EQ(y[0], 0x1p-127f);
  dequantize(2);
  EXPECT_EQ(y[0], 0x1p-126f);
  dequantize(255);
  EXPECT_EQ(y[0], 0x1p127f);
  EXPECT_EQ(y[16], INFINITY);
  uint8_t nv[36] = {0x7f, 0xff, 0x01, 0x80};
  for (int i = 4; i < 36; ++i) nv[i] = 0x11;
  float z[64];
  DequantizeRow(WeightType::kNVFP4, nv, 64, z);
  EXPECT_EQ(z[0], 0.0f);
  EXPECT_EQ(z[16], 240.0f);
  EXPECT_EQ(z[32], 0x1p-10f);
  EXPECT_EQ(z[48], 0.0f);
}

TEST(FormatTest, ScalesOfNvfp4AreHalves) {
  for (int v = 0; v < 256; ++v) {
    const auto scale = static_cast<uint8_t>(v);
    EXPECT_EQ(Ue4m3AsHalf(scale), F32ToF16(Ue4m3(scale))) << v;
  }
}

template <int kEntries, int kElements>
void ExpectSameEntries(const NibbleCodebook<kEntries>& book,
                       const int8_t (&grid)[kEntries][kElements]) {
  for (int i = 0; i < kEntries; ++i) {
    for (int j = 0; j < kElements; ++j) {
      const int nibble = book.codes[i] >> kNibbleAt[j % 4] & 15;
      ASSERT_EQ(book.values[j / 4][nibble], grid[i][j]) << "entry " << i << ", element " << j;
    }
  }
}

TEST(FormatTest, NibbleCodebooksHaveTheSameEntries) {
  ExpectSameEntries(kNibbleCodebooks.iq2_xxs, kCodebooks.iq2_xxs);
  ExpectSameEntries(kNibbleCodebooks.iq2_xs, kCodebooks.iq2_xs);
  ExpectSameEntries(kNibbleCodebooks.iq2_s, kCodebooks.iq2_s);
  ExpectSameEntries(kNibbleCodebooks.iq3_xxs, kCodebooks.iq3_xxs);
  ExpectSameEntries(kNibbleCodebooks.iq3_s, kCodebooks.iq3_s);
}

TEST(FormatTest, FloatTypesConvert) {
  const uint16_t halves[] = {F32ToF16(1.5f), F32ToF16(-3e-6f)};
  const uint16_t brains[] = {F32ToBf16(1.5f), F32ToBf16(-1e30f)};
  float y[2];
  DequantizeRow(WeightType::kF16, reinterpret_cast<const uint8_t*>(halves), 2, y);
  EXPECT_EQ(y[0], 1.5f);
  EXPECT_NEAR(y[1], -3e-6f, 3e-8f);
  DequantizeRow(WeightType::kBF16, reinterpret_cast<const uint8_t*>(brains), 2, y);
  EXPECT_EQ(y[0], 1.5f);
  EXPECT_NEAR(y[1], -1e30f, 4e27f);
}

TEST(FormatTest, EverySupportedTypeHasAFormatAndAnActivationBlock) {
  for (WeightType type : SupportedWeightTypes()) {
    EXPECT_EQ(FindQuantFormat(type) == nullptr, IsFloat(type));
    EXPECT_EQ(ActivationBlock(type), IsFloat(type)                ? 0
                                     : type == WeightType::kNVFP4 ? 16
                                                                  : InfoOf(type).block_elements);
  }
}

TEST(EmbeddingTest, LooksUpDequantisedRows) {
  Rng rng(dovetail::testing::TestSeed());
  for (WeightType type : SupportedWeightTypes()) {
    const int32_t cols = 256;
    const int64_t row_bytes = StoredBytes(type, cols);
    const std::vector<uint8_t> table_bytes = RandomWeights(rng, type, 10, cols);
    const int32_t tokens[] = {7, 0, 9};
    for (const KernelTable* table : TablesUnderTest()) {
      Guarded<float> y(3 * cols);
      table->embedding({table_bytes.data(), type, row_bytes, tokens, y.data(), cols, cols}, 0, 3);
      y.ExpectGuardsIntact();
      for (int r = 0; r < 3; ++r) {
        std::vector<float> expected(cols);
        DequantizeRow(type, table_bytes.data() + tokens[r] * row_bytes, cols, expected.data());
        ExpectSameBits(expected.data(), y.data() + r * cols, cols, table->name);
      }
    }
  }
}

// Rows of every lane, of a last panel that is not full too, in slices of any size.
TEST(EmbeddingTest, RowsOfPackedTablesAreThoseOfTheFile) {
  Rng rng(dovetail::testing::TestSeed());
  for (WeightType type : SupportedWeightTypes()) {
    const int32_t vocab = static_cast<int32_t>(Uniform(rng, 17, 70));
    const int32_t cols = static_cast<int32_t>(InfoOf(type).block_elements * Uniform(rng, 1, 3));
    const int64_t stride = cols + 3;
    const float scale = Uniform(rng, 0, 1) == 0 ? 1.0f : 11.3f;
    const std::vector<uint8_t> stored = RandomWeights(rng, type, vocab, cols);
    std::vector<int32_t> tokens;
    for (int32_t token = vocab - 1; token >= 0; --token) tokens.push_back(token);
    EmbeddingArgs args = {.table = stored.data(),
                          .type = type,
                          .row_bytes = StoredBytes(type, cols),
                          .tokens = tokens.data(),
                          .y_stride = stride,
                          .cols = cols,
                          .scale = scale};
    std::vector<float> expected(static_cast<size_t>(vocab * stride), 7.0f);
    args.y = expected.data();
    FindTable(Isa::kScalar)->embedding(args, 1, vocab);
    for (const KernelTable* table : TablesUnderTest()) {
      std::vector<uint8_t> memory(
          static_cast<size_t>(PackedBytes(table->layout, type, vocab, cols)) + 64);
      uint8_t* const packed =
          memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
      table->pack(type, stored.data(), vocab, cols, 0, vocab, packed);
      args.table = packed;
      std::vector<float> y(expected.size(), 7.0f);
      args.y = y.data();
      const int64_t middle = Uniform(rng, 1, vocab);
      table->packed_embedding(args, 1, middle);
      table->packed_embedding(args, middle, vocab);
      ExpectSameBits(expected.data(), y.data(), static_cast<int64_t>(y.size()),
                     absl::StrCat(table->name, " ", InfoOf(type).name, ", scale ", scale).c_str());
    }
  }
}

}  // namespace
}  // namespace dovetail::kernels
