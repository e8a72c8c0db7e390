#include "kernels/cpu/processor.h"

#include <cpuid.h>

#include <cstdint>

namespace dovetail::kernels {
namespace {

bool IsAmd() {
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
}

bool HasAmx() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  constexpr uint32_t kAmxTile = 1u << 24;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmxTile) != 0;
}

}  // namespace

bool processor_follows_one_stream = IsAmd();
bool processor_converts_aside = IsAmd();
bool processor_gathers = !IsAmd() && HasAmx();

}  // namespace dovetail::kernels
