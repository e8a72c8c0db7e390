// TablesUnderTest: every kernel table that runs here, and AMX's code over tiles in software, which
// no binary has and DOVETAIL_ISA does not know.
#ifndef DOVETAIL_TESTS_TESTING_KERNEL_TABLES_H_
#define DOVETAIL_TESTS_TESTING_KERNEL_TABLES_H_

#include <vector>

#include "kernels/table.h"

namespace dovetail::kernels::testing {

// kernels::AvailableTables() and, where AVX-512 runs, "amx-software".
std::vector<const KernelTable*> TablesUnderTest();

}  // namespace dovetail::kernels::testing

#endif  // DOVETAIL_TESTS_TESTING_KERNEL_TABLES_H_
