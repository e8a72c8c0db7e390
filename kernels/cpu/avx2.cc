// The kernels for AVX2, FMA and F16C: this unit's flags are set in kernels/CMakeLists.txt
// and hold for it alone (kernels/cpu/unit.h).
#include "kernels/cpu/unit.h"

#define DOVETAIL_ISA_NAME "avx2"
#define DOVETAIL_ISA_VALUE Isa::kAvx2
#define DOVETAIL_TILES "kernels/cpu/tile_memory.inl.h"

namespace dovetail::kernels {
namespace avx2 {
namespace {

#include "kernels/cpu/simd_avx2.inl.h"
//
#include "kernels/cpu/dot_avx2.inl.h"
//
#include "kernels/cpu/bodies.inl.h"

}  // namespace
}  // namespace avx2

const KernelTable* Avx2Table() { return &avx2::kTable; }

}  // namespace dovetail::kernels
