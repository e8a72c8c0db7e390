// What a unit of one instruction set includes before it opens its namespace: system headers and
// declarations, of which no code is instantiated.
//
// No std:: or Abseil code is instantiated in a unit: a weak copy of it, compiled with the unit's
// flags, could become everybody's.
#ifndef DOVETAIL_KERNELS_CPU_UNIT_H_
#define DOVETAIL_KERNELS_CPU_UNIT_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/p16.h"
#include "kernels/cpu/processor.h"
#include "kernels/exp_constants.h"
#include "kernels/gated_constants.h"
#include "kernels/kv_layout.h"
#include "kernels/ops.h"
#include "kernels/quant/codebooks.h"
#include "kernels/quant/values.h"
#include "kernels/table.h"

namespace dovetail::kernels::ref {

// Dequantising a row of the embedding is the same code everywhere.
void Embedding(const EmbeddingArgs& args, int64_t begin, int64_t end);

}  // namespace dovetail::kernels::ref

#endif  // DOVETAIL_KERNELS_CPU_UNIT_H_
