// Every kernel body, over the vocabulary that a unit has included before; the table comes last.
// Included once, inside the instruction set's namespace, which defines DOVETAIL_ISA_NAME,
// DOVETAIL_ISA_VALUE and DOVETAIL_TILES, the file of its tiles.

#include "kernels/cpu/simd_common.inl.h"
//
#include "kernels/cpu/elementwise.inl.h"
#include "kernels/cpu/quantize.inl.h"
#include "kernels/cpu/unpack.inl.h"
#include "kernels/cpu/unpack_codebook.inl.h"
//
#include "kernels/cpu/formats.inl.h"
#include "kernels/cpu/kv_cache.inl.h"
//
#include "kernels/cpu/attention_tiles.inl.h"
//
#include "kernels/cpu/attention_latent.inl.h"
//
#include "kernels/cpu/attention.inl.h"
//
#include "kernels/cpu/attention_parts.inl.h"
//
#include "kernels/cpu/matmul_float.inl.h"
#include "kernels/cpu/matmul_quant.inl.h"
#include "kernels/cpu/tile.inl.h"
//
#include DOVETAIL_TILES
//
#include "kernels/cpu/matmul_tile.inl.h"
//
#include "kernels/cpu/matmul_few.inl.h"
//
#include "kernels/cpu/table.inl.h"
