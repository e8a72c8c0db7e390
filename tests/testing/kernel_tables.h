// TablesUnderTest: every kernel table that runs here, and two which no binary has and DOVETAIL_ISA
// does not know: AMX's code over tiles in software, and a GPU's kernels on the SIMT shim.
#ifndef DOVETAIL_TESTS_TESTING_KERNEL_TABLES_H_
#define DOVETAIL_TESTS_TESTING_KERNEL_TABLES_H_

#include <vector>

#include "kernels/table.h"

namespace dovetail::kernels::testing {

// kernels::AvailableTables(), where AVX-512 runs "amx-software", and "simt".
std::vector<const KernelTable*> TablesUnderTest();
// For products and for attention, which some tables do in a way of their own. "avx512-other" and
// "avx2-other" are those instruction sets on a processor of the other kind
// (kernels/cpu/processor.h); they set variables of the process: one thread at a time.
std::vector<const KernelTable*> ProductTablesUnderTest();    // "simt-sm75" and "avx512-other" too
std::vector<const KernelTable*> AttentionTablesUnderTest();  // "avx512-other" and "avx2-other" too

// Whether its attention reads a cache where the blocks of a part follow each other (KvCacheView):
// a GPU's does not.
bool ReadsKvByPart(const KernelTable& table);

}  // namespace dovetail::kernels::testing

#endif  // DOVETAIL_TESTS_TESTING_KERNEL_TABLES_H_
