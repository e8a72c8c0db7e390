#include "kernels/cpu/isa_tables.h"

namespace dovetail::kernels {
const KernelTable* Avx512Table() { return nullptr; }
}  // namespace dovetail::kernels
