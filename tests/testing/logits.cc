#include "tests/testing/logits.h"

#include <cmath>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/weight_type.h"
#include "kernels/quant/format.h"

namespace dovetail::testing {
namespace {

double SumOfSquares(const Logits& a, const Logits* b) {
  double sum = 0;
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t i = 0; i < a[r].size(); ++i) {
      sum += std::pow(double{a[r][i]} - (b == nullptr ? 0.0 : (*b)[r][i]), 2);
    }
  }
  return sum;
}

double Count(const Logits& logits) {
  double count = 0;
  for (const std::vector<float>& row : logits) count += static_cast<double>(row.size());
  return count;
}

void SetFloats(const std::vector<float>& values, GgufWriter::Tensor* tensor) {
  tensor->type_id = static_cast<uint32_t>(WeightType::kF32);
  tensor->data.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

}  // namespace

absl::StatusOr<Logits> EvaluateSequence(const LocalPipelineOptions& options, int num_tokens,
                                        int vocab, int chunk) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < num_tokens; ++i) tokens.push_back(i * 37 % vocab);
  auto pipeline = LocalPipeline::Start(options);
  if (!pipeline.ok()) return pipeline.status();
  auto logits = (*pipeline)->Evaluate({tokens}, chunk);
  if (!logits.ok()) return logits.status();
  return (*logits)[0];
}

double Rms(const Logits& logits) {
  return std::sqrt(SumOfSquares(logits, nullptr) / Count(logits));
}

double RmsOfDifference(const Logits& a, const Logits& b) {
  return std::sqrt(SumOfSquares(a, &b) / Count(a));
}

::testing::AssertionResult SameBytes(const Logits& a, const Logits& b) {
  if (a.size() != b.size()) {
    return ::testing::AssertionFailure() << a.size() << " rows and " << b.size();
  }
  for (size_t r = 0; r < a.size(); ++r) {
    if (a[r].size() != b[r].size()) {
      return ::testing::AssertionFailure()
             << "row " << r << " has " << a[r].size() << " logits and " << b[r].size();
    }
    if (!a[r].empty() && std::memcmp(a[r].data(), b[r].data(), a[r].size() * sizeof(float)) != 0) {
      return ::testing::AssertionFailure()
             << "row " << r << " differs, RMS " << RmsOfDifference({a[r]}, {b[r]});
    }
  }
  return ::testing::AssertionSuccess();
}

void DequantiseTensor(GgufWriter::Tensor* tensor) {
  int64_t elements = 1;
  for (uint64_t n : tensor->shape) elements *= static_cast<int64_t>(n);
  std::vector<float> weights(static_cast<size_t>(elements));
  kernels::DequantizeRow(static_cast<WeightType>(tensor->type_id),
                         reinterpret_cast<const uint8_t*>(tensor->data.data()), elements,
                         weights.data());
  SetFloats(weights, tensor);
}

void ScaleParts(const std::vector<float>& scales, GgufWriter::Tensor* tensor) {
  DT_CHECK_EQ(tensor->type_id, static_cast<uint32_t>(WeightType::kF32));
  std::vector<float> values(tensor->data.size() / sizeof(float));
  std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
  const size_t part = values.size() / scales.size();
  for (size_t i = 0; i < values.size(); ++i) values[i] *= scales[i / part];
  SetFloats(values, tensor);
}

}  // namespace dovetail::testing
