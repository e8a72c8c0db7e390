// Products in tiles of AMX (TILE, INT8) beside the kernels for AVX-512: this unit's flags are set
// in kernels/CMakeLists.txt and hold for it alone (kernels/cpu/unit.h).
#include "kernels/cpu/tile_config.h"
#include "kernels/cpu/unit.h"

#define DOVETAIL_ISA_NAME "amx"

namespace dovetail::kernels {
namespace amx {
namespace {

#include "kernels/cpu/simd_avx512.inl.h"
//
#include "kernels/cpu/tile_amx.inl.h"
//
#include "kernels/cpu/amx_bodies.inl.h"

}  // namespace
}  // namespace amx

const KernelTable* AmxTable() { return &amx::kTable; }

}  // namespace dovetail::kernels
