#include "tests/testing/kernel_tables.h"

#include "kernels/cpu/amx_table.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/prefetch.h"
#include "kernels/kernel_table.h"
#include "kernels/simt/table.h"

namespace dovetail::kernels::testing {
namespace {

// AVX-512's products as they are made on processors of the other kind.
void MatmulOfOtherProcessors(const MatmulArgs& args, int64_t begin, int64_t end) {
  processor_follows_one_stream = !processor_follows_one_stream;
  FindTable(Isa::kAvx512)->matmul(args, begin, end);
  processor_follows_one_stream = !processor_follows_one_stream;
}

KernelTable OtherProcessorsAvx512() {
  KernelTable table = *FindTable(Isa::kAvx512);
  table.name = "avx512-other";
  table.matmul = MatmulOfOtherProcessors;
  return table;
}

}  // namespace

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
  if (FindTable(Isa::kAvx512) != nullptr) {
    static const KernelTable other = OtherProcessorsAvx512();
    tables.push_back(&other);
  }
  return tables;
}

}  // namespace dovetail::kernels::testing
