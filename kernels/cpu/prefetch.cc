#include "kernels/cpu/prefetch.h"

namespace dovetail::kernels {

bool processor_follows_one_stream = [] {
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
}();

}  // namespace dovetail::kernels
