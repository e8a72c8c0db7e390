// The kernels for AVX-512 (F, BW, VL, DQ, VNNI): this unit's flags are set in
// kernels/CMakeLists.txt and hold for it alone (kernels/cpu/unit.h).
#include "kernels/cpu/unit.h"

#define DOVETAIL_ISA_NAME "avx512"
#define DOVETAIL_ISA_VALUE Isa::kAvx512
#define DOVETAIL_TILES "kernels/cpu/tile_registers.inl.h"

namespace dovetail::kernels {
namespace avx512 {
namespace {

#include "kernels/cpu/simd_avx512.inl.h"
//
#include "kernels/cpu/bodies.inl.h"

}  // namespace
}  // namespace avx512

const KernelTable* Avx512Table() { return &avx512::kTable; }

}  // namespace dovetail::kernels
