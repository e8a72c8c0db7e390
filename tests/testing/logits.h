// Comparing what models compute: logits of one sequence, a row per token.
#ifndef DOVETAIL_TESTS_TESTING_LOGITS_H_
#define DOVETAIL_TESTS_TESTING_LOGITS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/local_pipeline.h"

namespace dovetail::testing {

// Those of `num_tokens` tokens, the same for every call, in a pipeline of their own.
absl::StatusOr<Logits> EvaluateSequence(const LocalPipelineOptions& options, int num_tokens,
                                        int vocab, int chunk);

// Root mean square over all logits.
double Rms(const Logits& logits);
double RmsOfDifference(const Logits& a, const Logits& b);

// Byte for byte: -0 and 0 are different bytes.
::testing::AssertionResult SameBytes(const Logits& a, const Logits& b);

// The same numbers as f32.
void DequantiseTensor(GgufWriter::Tensor* tensor);

// Multiplies each of `scales.size()` equal parts of an f32 tensor by its scale.
void ScaleParts(const std::vector<float>& scales, GgufWriter::Tensor* tensor);

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_LOGITS_H_
