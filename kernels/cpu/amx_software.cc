// As amx.cc with a model of the tiles in software, for tests: this unit's flags are set in
// kernels/CMakeLists.txt and hold for it alone (kernels/cpu/unit.h).
#include "kernels/cpu/tile_config.h"
#include "kernels/cpu/unit.h"

#define DOVETAIL_ISA_NAME "amx-software"

namespace dovetail::kernels {
namespace amx_software {
namespace {

#include "kernels/cpu/simd_avx512.inl.h"
//
#include "kernels/cpu/tile_software.inl.h"
//
#include "kernels/cpu/amx_bodies.inl.h"

}  // namespace
}  // namespace amx_software

const KernelTable* AmxSoftwareTable() { return &amx_software::kTable; }

}  // namespace dovetail::kernels
