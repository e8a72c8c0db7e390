// MatmulInPlace: a product with a matrix that lies as GGUF stores it, in the pages of the file.
//
// A few panels of rows at a time are packed into the caller's scratch, where the table's own
// product reads them: one function for every weight type and instruction set, and the bits of a
// packed matrix, since no element of a product depends on other rows. Allocates nothing, reads what
// `args` names alone.
#ifndef DOVETAIL_KERNELS_IN_PLACE_H_
#define DOVETAIL_KERNELS_IN_PLACE_H_

#include <cstdint>

#include "kernels/table.h"

namespace dovetail::kernels {

// table.matmul(args, begin, end), but that args.w are rows [n, k] as stored, aligned to nothing.
// `scratch`: InPlaceScratchBytes(args.k) (base/packed_layout.h) of this slice alone, 64-byte
// aligned.
void MatmulInPlace(const KernelTable& table, const MatmulArgs& args, int64_t begin, int64_t end,
                   uint8_t* scratch);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_IN_PLACE_H_
