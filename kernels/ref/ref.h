// The reference kernels: each op as a plain scalar loop, which is its specification
// (docs/numerics.md).
//
// Every other table is compared with these byte for byte. They work on weights as GGUF stores them
// and use std::fma, which is correctly rounded everywhere.
#ifndef DOVETAIL_KERNELS_REF_REF_H_
#define DOVETAIL_KERNELS_REF_REF_H_

#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/ops.h"

namespace dovetail::kernels::ref {

float Exp(float x);

// The weight of a key (docs/numerics.md): exp(x), and 0 below kLowestWeight.
float AttentionWeight(float x);

// Adds `lanes` (a power of two) partial sums: the upper half onto the lower until one is left.
float TreeSum(float* partial, int lanes);

void Pack(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
          int64_t row_end, uint8_t* dst);
void RmsNorm(const RmsNormArgs& args, int64_t begin, int64_t end);
void Quantize(const QuantizeArgs& args, int64_t begin, int64_t end);
void Matmul(const MatmulArgs& args, int64_t begin, int64_t end);
void SiluMul(const GatedArgs& args, int64_t begin, int64_t end);
void GeluMul(const GatedArgs& args, int64_t begin, int64_t end);
void SwigluOai(const GatedArgs& args, int64_t begin, int64_t end);
void Sigmoid(const float* x, float* y, int64_t n);
void Combine(const CombineArgs& args, int64_t begin, int64_t end);
void Rope(const RopeArgs& args, int64_t begin, int64_t end);
bool KvAppend(const KvAppendArgs& args, int64_t begin, int64_t end);
void Attention(const AttentionArgs& args, int64_t begin, int64_t end);
void AttentionParts(const AttentionArgs& args, int64_t task, int64_t begin, int64_t end);
void AttentionMerge(const AttentionArgs& args, int64_t begin, int64_t end);
void Embedding(const EmbeddingArgs& args, int64_t begin, int64_t end);
float Softmax(const SoftmaxArgs& args);
int32_t ArgMax(const float* x, int64_t n);
bool AllFinite(const float* x, int64_t n);
uint64_t ReadStream(const uint8_t* data, int64_t bytes);

extern const KernelTable kTable;

}  // namespace dovetail::kernels::ref

#endif  // DOVETAIL_KERNELS_REF_REF_H_
