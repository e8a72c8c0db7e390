#include "kernels/cpu/isa_tables.h"

namespace dovetail::kernels {
const KernelTable* Avx2Table() { return nullptr; }
}  // namespace dovetail::kernels
