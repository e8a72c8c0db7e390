// Models of one weight type, and of any mixture of types tensor by tensor: the worker computes the
// same bytes with every kernel table, and nearly what it computes with the dequantised weights.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "kernels/quant/format.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail {
namespace {

using testing::GgufWriter;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using testing::Logits;

constexpr int kTokens = 70;  // more than a token group of the kernels

std::string TempFile(const std::string& name) {
  return absl::StrCat(::testing::TempDir(), "/weight_types_", name, ".gguf");
}

// Random weights of types[i] for matrix i, and the same weights dequantised.
void WriteModels(const std::vector<WeightType>& types, const std::string& quantised,
                 const std::string& dequantised) {
  const testing::TinyLlamaOptions options = {.hidden = 256, .ffn = 512, .tokenizer = false};
  GgufWriter writer = MakeTinyLlama(options), copy = MakeTinyLlama(options);
  size_t next = 0;
  for (size_t i = 0; i < writer.tensors().size(); ++i) {
    GgufWriter::Tensor& tensor = writer.tensors()[i];
    if (tensor.shape.size() < 2) continue;
    const auto cols = static_cast<int64_t>(tensor.shape[0]);
    const auto rows = static_cast<int64_t>(tensor.shape[1]);
    const WeightType type = types[next++ % types.size()];
    tensor.type_id = static_cast<uint32_t>(type);
    tensor.data = testing::RandomWeights(type, rows, cols, 1.0 / std::sqrt(cols), 77 + i);
    std::vector<float> weights(static_cast<size_t>(rows * cols));
    kernels::DequantizeRow(type, reinterpret_cast<const uint8_t*>(tensor.data.data()), rows * cols,
                           weights.data());
    copy.tensors()[i].data.assign(reinterpret_cast<const char*>(weights.data()),
                                  weights.size() * sizeof(float));
  }
  writer.Write(quantised);
  copy.Write(dequantised);
}

absl::StatusOr<Logits> Evaluate(const LocalPipelineOptions& options, int chunk) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < kTokens; ++i) tokens.push_back(i * 37 % 320);
  auto pipeline = LocalPipeline::Start(options);
  if (!pipeline.ok()) return pipeline.status();
  auto logits = (*pipeline)->Evaluate({tokens}, chunk);
  if (!logits.ok()) return logits.status();
  return (*logits)[0];
}

double Rms(const Logits& a, const Logits* b) {
  double sum = 0, count = 0;
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t i = 0; i < a[r].size(); ++i, ++count) {
      sum += std::pow(double{a[r][i]} - (b == nullptr ? 0.0 : (*b)[r][i]), 2);
    }
  }
  return std::sqrt(sum / count);
}

void ExpectRightAndSameEverywhere(const std::vector<WeightType>& types, const std::string& name) {
  const std::string quantised = TempFile(name), dequantised = TempFile(name + "_f32");
  WriteModels(types, quantised, dequantised);
  LocalPipelineOptions exact;
  exact.gguf = dequantised;
  ASSERT_OK_AND_ASSIGN(const Logits expected, Evaluate(exact, 512));
  LocalPipelineOptions options;
  options.gguf = quantised;
  options.kernels = kernels::FindTable(kernels::Isa::kScalar);
  ASSERT_OK_AND_ASSIGN(const Logits scalar, Evaluate(options, 512));
  const double size = Rms(expected, nullptr), error = Rms(expected, &scalar);
  std::printf("%s: relative error %.4f\n", name.c_str(), error / size);
  EXPECT_GT(size, 0.01);
  // Eight-bit activations cost about one percent; a wrong scale or a wrong form of the activations,
  // all of it.
  EXPECT_LT(error, 0.06 * size) << name;
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    options.kernels = table;
    options.cuts = {2, 4};
    options.num_threads = 2;
    ASSERT_OK_AND_ASSIGN(const Logits actual, Evaluate(options, 33));
    for (size_t r = 0; r < scalar.size(); ++r) {
      ASSERT_EQ(std::memcmp(scalar[r].data(), actual[r].data(), scalar[r].size() * sizeof(float)),
                0)
          << name << ", " << table->name << ", row " << r;
    }
  }
  std::remove(quantised.c_str());
  std::remove(dequantised.c_str());
}

class WeightTypes : public ::testing::TestWithParam<WeightType> {};

TEST_P(WeightTypes, AWholeModelOfIt) {
  ExpectRightAndSameEverywhere({GetParam()}, std::string(InfoOf(GetParam()).name));
}

INSTANTIATE_TEST_SUITE_P(All, WeightTypes,
                         ::testing::ValuesIn(SupportedWeightTypes().begin(),
                                             SupportedWeightTypes().end()),
                         [](const auto& info) { return std::string(InfoOf(info.param).name); });

TEST(WeightTypeMixtures, AnyTypesInOneFile) {
  std::mt19937 random(static_cast<uint32_t>(testing::TestSeed()));
  const auto all = SupportedWeightTypes();
  for (int trial = 0; trial < 6; ++trial) {
    std::vector<WeightType> types;
    for (int i = 0; i < 16; ++i) types.push_back(all[random() % all.size()]);
    ExpectRightAndSameEverywhere(types, absl::StrCat("mixture_", trial));
  }
}

}  // namespace
}  // namespace dovetail
