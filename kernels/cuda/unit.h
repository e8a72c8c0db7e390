// What a unit that compiles kernels includes before it opens its namespace.
#ifndef DOVETAIL_KERNELS_CUDA_UNIT_H_
#define DOVETAIL_KERNELS_CUDA_UNIT_H_

#include <cstdint>

#include "base/packed_layout.h"
#include "kernels/cpu/chunk_dwords.h"
#include "kernels/cpu/p16.h"
#include "kernels/cpu/pack_rules.h"
#include "kernels/cpu/scale_dwords.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_table.h"
#include "kernels/exp_constants.h"
#include "kernels/gated_constants.h"
#include "kernels/kv_layout.h"
#include "kernels/ops.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/codebooks.h"
#include "kernels/quant/values.h"

namespace dovetail::kernels::cuda {

// Products with the weight types of one group, each compiled by a unit of its own; false: the type
// is another group's. Units: panels.
bool MatmulSmallBlocks(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream);
bool MatmulKTypes(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream);
bool MatmulCodebooks(const DeviceMatmulArgs& args, int64_t begin, int64_t end, Stream stream);
// The same for the rows of an embedding. Units: rows.
bool EmbedSmallBlocks(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream);
bool EmbedKTypes(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream);
bool EmbedCodebooks(const EmbeddingArgs& args, int64_t begin, int64_t end, Stream stream);

// Shapes of grids.
static inline Grid RowGrid(int64_t blocks) { return {static_cast<uint32_t>(blocks), 1}; }
static inline int64_t BlocksOf(int64_t units, int64_t per_block) {
  return (units + per_block - 1) / per_block;
}

// Of a product: groups or heads, each with one of its own, and the most rows that one of them has.
static inline int64_t SetsOf(const DeviceMatmulArgs& args) {
  return args.groups != nullptr ? args.max_groups : args.heads;
}
static inline int32_t MostRowsOf(const DeviceMatmulArgs& args) {
  return args.groups != nullptr ? args.max_group_rows : args.rows;
}
// Blocks of a product's launch in y: tiles of `tokens` rows of each group or head.
static inline uint32_t RowTiles(DeviceMatmulArgs* args, int64_t tokens) {
  args->tiles = static_cast<int32_t>(BlocksOf(MostRowsOf(*args), tokens));
  return static_cast<uint32_t>(SetsOf(*args) * args->tiles);
}

}  // namespace dovetail::kernels::cuda

#endif  // DOVETAIL_KERNELS_CUDA_UNIT_H_
