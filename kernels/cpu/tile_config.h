// The shapes of AMX's tile registers, as LDTILECFG reads them. Plain data: instruction-set units
// include this.
#ifndef DOVETAIL_KERNELS_CPU_TILE_CONFIG_H_
#define DOVETAIL_KERNELS_CPU_TILE_CONFIG_H_

#include <cstdint>

namespace dovetail::kernels {

struct alignas(64) TileConfig {
  uint8_t palette;  // 1: tiles 0 to 7, each of at most 16 rows of at most 64 bytes
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_TILE_CONFIG_H_
