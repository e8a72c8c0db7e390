// The kernels for AVX2, FMA and F16C: this unit's flags are set in kernels/CMakeLists.txt and hold
// for it alone.
//
// No std:: or Abseil code is instantiated here: a weak copy of it could become everybody's.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/p16.h"
#include "kernels/exp_constants.h"
#include "kernels/gated_constants.h"
#include "kernels/kv_layout.h"
#include "kernels/ops.h"
#include "kernels/quant/codebooks.h"
#include "kernels/quant/values.h"
#include "kernels/table.h"

#define DOVETAIL_ISA_NAME "avx2"
#define DOVETAIL_ISA_VALUE Isa::kAvx2

namespace dovetail::kernels {

// Dequantising a row of the embedding is the same code everywhere.
namespace ref {
void Embedding(const EmbeddingArgs& args, int64_t begin, int64_t end);
}

namespace avx2 {
namespace {

#include "kernels/cpu/simd_avx2.inl.h"
//
#include "kernels/cpu/elementwise.inl.h"
#include "kernels/cpu/quantize.inl.h"
#include "kernels/cpu/unpack.inl.h"
#include "kernels/cpu/unpack_codebook.inl.h"
//
#include "kernels/cpu/kv_cache.inl.h"
//
#include "kernels/cpu/attention.inl.h"
//
#include "kernels/cpu/attention_parts.inl.h"
//
#include "kernels/cpu/matmul_float.inl.h"
#include "kernels/cpu/matmul_quant.inl.h"
#include "kernels/cpu/matmul_tile.inl.h"
//
#include "kernels/cpu/matmul_few.inl.h"
//
#include "kernels/cpu/table.inl.h"

}  // namespace
}  // namespace avx2

const KernelTable* Avx2Table() { return &avx2::kTable; }

}  // namespace dovetail::kernels
