// KernelTable: one function pointer per op, filled once for an instruction set; the only header
// that callers of CPU kernels need.
//
// Tables: scalar (kernels/ref: the specification, works on weights as GGUF stores them), avx2,
// avx512 (VNNI). All give the same bits. DOVETAIL_ISA=scalar|avx2|avx512 overrides the choice.
// Constants, thread-safe. A new weight type adds an entry to kernels/quant and an unpack; a new
// instruction set adds a translation unit and a table (docs/kernels.md).
#ifndef DOVETAIL_KERNELS_KERNEL_TABLE_H_
#define DOVETAIL_KERNELS_KERNEL_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/packed_layout.h"
#include "kernels/ops.h"

namespace dovetail::kernels {

enum class Isa { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };

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
  void (*silu_mul)(const SiluMulArgs& args, int64_t begin, int64_t end);
  void (*rope)(const RopeArgs& args, int64_t begin, int64_t end);
  void (*kv_append)(const KvAppendArgs& args, int64_t begin, int64_t end);
  void (*attention)(const AttentionArgs& args, int64_t begin, int64_t end);
  void (*embedding)(const EmbeddingArgs& args, int64_t begin, int64_t end);
  float (*softmax)(const SoftmaxArgs& args);     // returns the sum
  int32_t (*argmax)(const float* x, int64_t n);  // ties to the lowest index; -1 if any is NaN
  bool (*all_finite)(const float* x, int64_t n);
  // Reads every byte with the widest loads there are and returns a checksum: measures bandwidth.
  uint64_t (*read_stream)(const uint8_t* data, int64_t bytes);
};

// Elements per activation block that products with `type` read: 32, 256, or 0 for float weights.
int32_t ActivationBlock(WeightType type);

// Floats of scratch that one thread's attention() slice needs.
int64_t AttentionScratchFloats(int32_t num_heads, int32_t num_kv_heads, int32_t head_dim);

// f32 cosines and sines of position * inv_freq[i], times `factor`: cos_sin[0 .. n) and [n .. 2n).
// Plain IEEE double arithmetic of our own: the same bits on every machine.
void RopeAngles(int32_t position, const float* inv_freq, int32_t n, float factor, float* cos_sin);

// The table of `isa`, or nullptr where this build or this processor lacks it.
const KernelTable* FindTable(Isa isa);
// What DOVETAIL_ISA asks for, else the best that this processor can run. Errors name the value, the
// accepted ones, and what the processor lacks.
absl::StatusOr<const KernelTable*> SelectTable(absl::string_view dovetail_isa);
std::vector<const KernelTable*> AvailableTables();

// "avx2 fma f16c avx512f ... amx_int8": what cpuid says, for registration and bug reports.
std::string CpuFeatures();

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_KERNEL_TABLE_H_
