// The kernels for AMX (TILE, INT8) beside AVX-512: this unit's flags are set in
// kernels/CMakeLists.txt and hold for it alone (kernels/cpu/unit.h).
#include "kernels/cpu/tile_config.h"
#include "kernels/cpu/unit.h"

#define DOVETAIL_ISA_NAME "amx"
#define DOVETAIL_ISA_VALUE Isa::kAmx
#define DOVETAIL_TILE_UNIT

namespace dovetail::kernels {
namespace amx {
namespace {

#include "kernels/cpu/simd_avx512.inl.h"
//
#include "kernels/cpu/tile_amx.inl.h"
//
#include "kernels/cpu/bodies.inl.h"

}  // namespace
}  // namespace amx

const KernelTable* AmxTable() { return &amx::kTable; }

}  // namespace dovetail::kernels
