// TransposeRows: a stored matrix turned around, for weights that a product reads by column. A pure
// function.
#ifndef DOVETAIL_WORKER_TRANSPOSE_H_
#define DOVETAIL_WORKER_TRANSPOSE_H_

#include <cstdint>
#include <vector>

#include "base/weight_type.h"
#include "kernels/kernel_table.h"

namespace dovetail::worker {

// `rows` rows of `type` as GGUF stores them, each of `cols` elements, as `cols` rows of
// model::TransposedType(type): the same numbers, quantised ones as f32.
std::vector<uint8_t> TransposeRows(const kernels::KernelTable& kernels, WeightType type,
                                   const uint8_t* src, int64_t rows, int64_t cols);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_TRANSPOSE_H_
