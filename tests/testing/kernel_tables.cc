#include "tests/testing/kernel_tables.h"

#include "kernels/cpu/amx_table.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/kernel_table.h"
#include "kernels/simt/table.h"

namespace dovetail::kernels::testing {

std::vector<const KernelTable*> TablesUnderTest() {
  std::vector<const KernelTable*> tables = AvailableTables();
  static const KernelTable software = OverAvx512(*AmxSoftwareTable());
  if (FindTable(Isa::kAvx512) != nullptr) tables.push_back(&software);
  tables.push_back(&simt::SliceTable());
  return tables;
}

std::vector<const KernelTable*> ProductTablesUnderTest() {
  std::vector<const KernelTable*> tables = TablesUnderTest();
  tables.push_back(&simt::SliceTableSm75());
  return tables;
}

}  // namespace dovetail::kernels::testing
