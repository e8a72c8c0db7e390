#include "tests/testing/kernel_tables.h"

#include "kernels/cpu/amx_table.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/processor.h"
#include "kernels/kernel_table.h"
#include "kernels/simt/table.h"

namespace dovetail::kernels::testing {
namespace {

// While it lives, the processor is of the other kind.
class OtherProcessor {
 public:
  OtherProcessor() { Turn(); }
  ~OtherProcessor() { Turn(); }

 private:
  static void Turn() {
    processor_follows_one_stream = !processor_follows_one_stream;
    processor_converts_aside = !processor_converts_aside;
    processor_gathers = !processor_gathers;
  }
};

template <Isa kIsa>
void MatmulOfOther(const MatmulArgs& args, int64_t begin, int64_t end) {
  const OtherProcessor other;
  FindTable(kIsa)->matmul(args, begin, end);
}
template <Isa kIsa>
void AttentionOfOther(const AttentionArgs& args, int64_t begin, int64_t end) {
  const OtherProcessor other;
  FindTable(kIsa)->attention(args, begin, end);
}

template <Isa kIsa>
void AddOther(const char* name, std::vector<const KernelTable*>* tables) {
  if (FindTable(kIsa) == nullptr) return;
  static const KernelTable table = [&] {
    KernelTable other = *FindTable(kIsa);
    other.name = name;
    other.matmul = MatmulOfOther<kIsa>;
    other.attention = AttentionOfOther<kIsa>;
    return other;
  }();
  tables->push_back(&table);
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
  AddOther<Isa::kAvx512>("avx512-other", &tables);
  return tables;
}

std::vector<const KernelTable*> AttentionTablesUnderTest() {
  std::vector<const KernelTable*> tables = TablesUnderTest();
  AddOther<Isa::kAvx512>("avx512-other", &tables);
  AddOther<Isa::kAvx2>("avx2-other", &tables);
  return tables;
}

bool ReadsKvByPart(const KernelTable& table) {
  return table.attention != simt::SliceTable().attention;
}

}  // namespace dovetail::kernels::testing
