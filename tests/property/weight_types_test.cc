// Models of one weight type, and of any mixture of types tensor by tensor: the worker computes the
// same bytes with every kernel table, and nearly what it computes with the dequantised weights.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "model/model_config.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/logits.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail {
namespace {

using testing::EvaluateSequence;
using testing::GgufWriter;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::Rms;
using testing::RmsOfDifference;
using testing::SameBytes;

constexpr int kTokens = 70;  // more than a token group of the kernels
constexpr int kVocab = 320;

std::string TempModel(const std::string& name) {
  return testing::TempFile(absl::StrCat("weight_types_", name, ".gguf"));
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
    copy.tensors()[i] = tensor;
    testing::DequantiseTensor(&copy.tensors()[i]);
  }
  writer.Write(quantised);
  copy.Write(dequantised);
}

void ExpectRightAndSameEverywhere(const std::vector<WeightType>& types, const std::string& name) {
  const std::string quantised = TempModel(name), dequantised = TempModel(name + "_f32");
  WriteModels(types, quantised, dequantised);
  LocalPipelineOptions exact;
  exact.gguf = dequantised;
  ASSERT_OK_AND_ASSIGN(const Logits expected, EvaluateSequence(exact, kTokens, kVocab, 512));
  LocalPipelineOptions options;
  options.gguf = quantised;
  options.kernels = kernels::FindTable(kernels::Isa::kScalar);
  ASSERT_OK_AND_ASSIGN(const Logits scalar, EvaluateSequence(options, kTokens, kVocab, 512));
  const double size = Rms(expected), error = RmsOfDifference(expected, scalar);
  std::printf("%s: relative error %.4f\n", name.c_str(), error / size);
  EXPECT_GT(size, 0.01);
  // Eight-bit activations cost about one percent; a wrong scale or a wrong form of the activations,
  // all of it.
  EXPECT_LT(error, 0.06 * size) << name;
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    options.kernels = table;
    options.cuts = {2, 4};
    options.num_threads = 2;
    ASSERT_OK_AND_ASSIGN(const Logits actual, EvaluateSequence(options, kTokens, kVocab, 33));
    ASSERT_TRUE(SameBytes(scalar, actual)) << name << ", " << table->name;
  }
  options.in_place = true;
  ASSERT_OK_AND_ASSIGN(const Logits in_place, EvaluateSequence(options, kTokens, kVocab, 33));
  EXPECT_TRUE(SameBytes(scalar, in_place)) << name << " in place";
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

// A model whose matrices have scales, and the same with the scales in the weights. Powers of two,
// so that both are exact.
void WriteScaledModels(int experts, const std::string& scaled, const std::string& folded) {
  const testing::TinyLlamaOptions options = {.experts = experts, .tokenizer = false};
  GgufWriter writer = MakeTinyLlama(options), copy = MakeTinyLlama(options);
  float scale = 0.25f;
  for (size_t i = 0, count = writer.tensors().size(); i < count; ++i) {
    const GgufWriter::Tensor tensor = writer.tensors()[i];
    if (tensor.shape.size() < 2 || tensor.name == "token_embd.weight") continue;
    std::vector<float> scales;
    std::string data;
    for (uint64_t e = 0; e < (tensor.shape.size() == 3 ? tensor.shape[2] : 1); ++e) {
      scale = scale >= 4 ? 0.25f : 2 * scale;
      scales.push_back(scale);
      data += GgufWriter::Bytes(scale);
    }
    writer.AddTensor(model::ScaleTensor(tensor.name), WeightType::kF32, {scales.size()}, data);
    testing::ScaleParts(scales, &copy.tensors()[i]);
  }
  // What NVFP4 files have besides, for other engines.
  writer.AddTensor("blk.0.attn_q.input_scale", WeightType::kF32, {1}, GgufWriter::Bytes(3.0f));
  writer.Write(scaled);
  copy.Write(folded);
}

// All experts from the third on are apart.
Route ExpertsApart(const model::ModelConfig& config) {
  Route route;
  for (const Op& op : model::OpsOf(config)) {
    std::vector<Op> parts = {op};
    if (op.kind == OpKind::kExperts) {
      parts = {{op.kind, op.layer, 0, 2}, {op.kind, op.layer, 2, op.expert_end}};
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string worker = absl::StrCat("cpu:", i);
      if (route.empty() || route.back().worker != worker) route.push_back({worker, {}});
      route.back().ops.push_back(parts[i]);
    }
  }
  return route;
}

TEST(ScalesOfMatrices, MultiplyWhatTheMatrixMakes) {
  for (const int experts : {0, 5}) {
    const std::string scaled = TempModel("scaled"), folded = TempModel("folded");
    WriteScaledModels(experts, scaled, folded);
    LocalPipelineOptions options;
    options.gguf = folded;
    ASSERT_OK_AND_ASSIGN(const Logits expected, EvaluateSequence(options, kTokens, kVocab, 512));
    options.gguf = scaled;
    for (const kernels::KernelTable* table : kernels::AvailableTables()) {
      options.kernels = table;
      ASSERT_OK_AND_ASSIGN(const Logits actual, EvaluateSequence(options, kTokens, kVocab, 33));
      EXPECT_TRUE(SameBytes(expected, actual)) << experts << " experts, " << table->name;
    }
    options.make_route = &ExpertsApart;
    ASSERT_OK_AND_ASSIGN(const Logits apart, EvaluateSequence(options, kTokens, kVocab, 512));
    EXPECT_TRUE(SameBytes(expected, apart)) << experts << " experts";
    std::remove(scaled.c_str());
    std::remove(folded.c_str());
  }
}

}  // namespace
}  // namespace dovetail
