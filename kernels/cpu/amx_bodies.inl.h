// The kernels of a unit with tiles: products of many rows; all else is the AVX-512 unit's. Included
// once, inside the instruction set's namespace, after simd_avx512.inl.h and the tiles.

#include "kernels/cpu/simd_common.inl.h"
//
#include "kernels/cpu/unpack.inl.h"
#include "kernels/cpu/unpack_codebook.inl.h"
//
#include "kernels/cpu/formats.inl.h"
#include "kernels/cpu/matmul_quant.inl.h"
#include "kernels/cpu/tile.inl.h"
//
#include "kernels/cpu/amx_image.inl.h"
#include "kernels/cpu/amx_tokens.inl.h"
//
#include "kernels/cpu/matmul_amx_small.inl.h"
//
#include "kernels/cpu/matmul_amx.inl.h"

static void Matmul(const MatmulArgs& args, int64_t begin, int64_t end) {
  if (begin == end) return;  // a block is made ready before the first panel
  const bool is_float = args.type == WeightType::kF32 || args.type == WeightType::kF16 ||
                        args.type == WeightType::kBF16;
  if (is_float || args.k > kGroupBytes) return Avx512Table()->matmul(args, begin, end);
  WithFormat(args.type, [&]<typename Format>() {
    if (args.rows < kTileRows<Format>) return Avx512Table()->matmul(args, begin, end);
    AmxMatmul<Format>(args, begin, end);
  });
}

// Constant, like every table: asking for it executes nothing of this unit.
static constinit const KernelTable kTable = {
    .name = DOVETAIL_ISA_NAME,
    .isa = Isa::kAmx,
    .layout = PackedLayout::kP16,
    .matmul = Matmul,
};
