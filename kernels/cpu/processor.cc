#include "kernels/cpu/processor.h"

#include <cpuid.h>

#include <cstdint>

namespace dovetail::kernels {
namespace {

bool IsAmd() {
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
}

// Leaf 7 of CPUID; zeros where there is none.
struct Features {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  Features() { __get_cpuid_count(7, 0, &a, &b, &c, &d); }
};

bool HasAmx() {
  constexpr uint32_t kAmxTile = 1u << 24;
  return (Features().d & kAmxTile) != 0;
}

bool HasClflushopt() {
  constexpr uint32_t kClflushopt = 1u << 23;
  return (Features().b & kClflushopt) != 0;
}

}  // namespace

bool processor_follows_one_stream = IsAmd();
bool processor_converts_aside = IsAmd();
bool processor_gathers = !IsAmd() && HasAmx();
bool processor_flushes_together = HasClflushopt();

}  // namespace dovetail::kernels
