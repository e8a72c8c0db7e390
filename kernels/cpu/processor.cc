#include "kernels/cpu/processor.h"

namespace dovetail::kernels {
namespace {

bool IsAmd() {
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
}

}  // namespace

bool processor_follows_one_stream = IsAmd();
bool processor_converts_aside = IsAmd();

}  // namespace dovetail::kernels
