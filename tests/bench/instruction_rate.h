// How fast this processor runs the instructions that products are made of: loops of nothing else.
//
// The ceiling that prompts are measured against, and the facts behind the choice of products
// (docs/kernels.md). Any thread; nothing is shared.
#ifndef DOVETAIL_TESTS_BENCH_INSTRUCTION_RATE_H_
#define DOVETAIL_TESTS_BENCH_INSTRUCTION_RATE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/table.h"

namespace dovetail::kernels {

struct Instruction {
  const char* name;  // "vpdpbusd/512"
  Isa needs;         // a table of this instruction set must be available
  // Multiplications of two elements that one of them does; 0: it multiplies nothing.
  int multiplications;
  // Runs `loops` times kInstructionsOfLoop of them, none of which waits for another of its loop.
  void (*run)(int64_t loops);
};
inline constexpr int kInstructionsOfLoop = 12;

absl::Span<const Instruction> Instructions();
bool CanRun(const Instruction& instruction);

// Instructions a second on the calling thread, the best of several short tries.
double InstructionRate(const Instruction& instruction);

// Clock cycles a second of the calling thread's processor at the moment, from a chain of integer
// multiplications that take three cycles each on every x86 processor of the last ten years.
double ClockRate();

// Multiplications of 8-bit numbers a second on the calling thread, by the instructions with which
// the table of `isa` multiplies. 0 if it has none of them (kScalar).
double Int8Peak(Isa isa);
// Fused multiply-adds of floats a second, the same way.
double FloatPeak(Isa isa);

}  // namespace dovetail::kernels

#endif  // DOVETAIL_TESTS_BENCH_INSTRUCTION_RATE_H_
