// Tables of units with tiles have a name and `matmul` only (kernels/cpu/amx_bodies.inl.h); all else
// is the AVX-512 unit's. They are put together here, outside of the units: who asks for a table may
// run on a processor that could not execute an instruction of theirs.
#ifndef DOVETAIL_KERNELS_CPU_AMX_TABLE_H_
#define DOVETAIL_KERNELS_CPU_AMX_TABLE_H_

#include "kernels/table.h"

namespace dovetail::kernels {

// The AVX-512 table with the name and the products of `part`.
KernelTable OverAvx512(const KernelTable& part);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_AMX_TABLE_H_
