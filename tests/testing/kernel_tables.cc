#include "tests/testing/kernel_tables.h"

#include "kernels/cpu/isa_tables.h"
#include "kernels/kernel_table.h"

namespace dovetail::kernels::testing {

std::vector<const KernelTable*> TablesUnderTest() {
  std::vector<const KernelTable*> tables = AvailableTables();
  if (FindTable(Isa::kAvx512) != nullptr) tables.push_back(AmxSoftwareTable());
  return tables;
}

}  // namespace dovetail::kernels::testing
