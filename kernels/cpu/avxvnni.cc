// The kernels for AVX2, FMA, F16C and AVX-VNNI: this unit's flags are set in kernels/CMakeLists.txt
// and hold for it alone (kernels/cpu/unit.h).
#include "kernels/cpu/unit.h"

#define DOVETAIL_ISA_NAME "avxvnni"
#define DOVETAIL_ISA_VALUE Isa::kAvxVnni
#define DOVETAIL_TILES "kernels/cpu/tile_registers.inl.h"

namespace dovetail::kernels {
namespace avxvnni {
namespace {

#include "kernels/cpu/simd_avx2.inl.h"
//
#include "kernels/cpu/dot_avxvnni.inl.h"
//
#include "kernels/cpu/bodies.inl.h"

}  // namespace
}  // namespace avxvnni

const KernelTable* AvxVnniTable() { return &avxvnni::kTable; }

}  // namespace dovetail::kernels
