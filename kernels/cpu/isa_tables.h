// The tables of the instruction-set units; nullptr where this build leaves a unit out.
#ifndef DOVETAIL_KERNELS_CPU_ISA_TABLES_H_
#define DOVETAIL_KERNELS_CPU_ISA_TABLES_H_

namespace dovetail::kernels {

struct KernelTable;

const KernelTable* Avx2Table();
const KernelTable* AvxVnniTable();
const KernelTable* Avx512Table();
const KernelTable* AmxTable();
// AMX's code over a model of its tiles, on AVX-512; only tests link it (tests/testing).
const KernelTable* AmxSoftwareTable();

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_ISA_TABLES_H_
