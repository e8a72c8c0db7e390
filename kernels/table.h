// KernelTable: one function pointer per op, filled once for an instruction set.
//
// Plain data without Abseil or std:: templates in use: instruction-set units include this.
#ifndef DOVETAIL_KERNELS_TABLE_H_
#define DOVETAIL_KERNELS_TABLE_H_

#include <cstdint>

#include "base/packed_layout.h"
#include "kernels/ops.h"

namespace dovetail::kernels {

enum class Isa { kScalar, kAvx2, kAvxVnni, kAvx512, kAmx };

struct KernelTable {
  const char* name;  // "avx512"
  Isa isa;
  PackedLayout layout;  // what `pack` makes and `matmul` reads

  // Packs weight rows [row_begin, row_end) (row_begin a multiple of kPanelRows) of a matrix [n, k]
  // stored as GGUF rows at `src` into its place in `dst` (PackedBytes(layout, type, n, k) in all).
  void (*pack)(WeightType type, const uint8_t* src, int64_t n, int64_t k, int64_t row_begin,
               int64_t row_end, uint8_t* dst);

  void (*rms_norm)(const RmsNormArgs& args, int64_t begin, int64_t end);
  void (*quantize)(const QuantizeArgs& args, int64_t begin, int64_t end);
  void (*matmul)(const MatmulArgs& args, int64_t begin, int64_t end);
  void (*silu_mul)(const GatedArgs& args, int64_t begin, int64_t end);
  void (*gelu_mul)(const GatedArgs& args, int64_t begin, int64_t end);
  void (*swiglu_oai)(const GatedArgs& args, int64_t begin, int64_t end);
  void (*sigmoid)(const float* x, float* y, int64_t n);  // 1 / (1 + exp(-x)); y may be x
  void (*combine)(const CombineArgs& args, int64_t begin, int64_t end);
  void (*rope)(const RopeArgs& args, int64_t begin, int64_t end);
  bool (*kv_append)(const KvAppendArgs& args, int64_t begin, int64_t end);
  void (*attention)(const AttentionArgs& args, int64_t begin, int64_t end);
  void (*attention_parts)(const AttentionArgs& args, int64_t task, int64_t begin, int64_t end);
  void (*attention_merge)(const AttentionArgs& args, int64_t begin, int64_t end);
  void (*embedding)(const EmbeddingArgs& args, int64_t begin, int64_t end);
  // Of a table that `pack` has made: the same bits.
  void (*packed_embedding)(const EmbeddingArgs& args, int64_t begin, int64_t end);
  float (*softmax)(const SoftmaxArgs& args);     // returns the sum
  int32_t (*argmax)(const float* x, int64_t n);  // ties to the lowest index; -1 if any is NaN
  bool (*all_finite)(const float* x, int64_t n);
  // Reads every byte with the widest loads there are and returns a checksum: measures bandwidth.
  uint64_t (*read_stream)(const uint8_t* data, int64_t bytes);
};

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_TABLE_H_
