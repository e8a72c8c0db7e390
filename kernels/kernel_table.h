// KernelTable: one function pointer per op, filled once for an instruction set; the only header
// that callers of CPU kernels need.
//
// Tables: scalar (kernels/ref: the specification, works on weights as GGUF stores them), avx2,
// avxvnni, avx512 (VNNI), amx (INT8, beside AVX-512). All give the same bits. DOVETAIL_ISA with one
// of these names overrides the choice, which is the last one that this processor can run.
// Constants, thread-safe. A new weight type adds an entry to kernels/quant and an unpack; a new
// instruction set adds a translation unit and a table (docs/kernels.md).
#ifndef DOVETAIL_KERNELS_KERNEL_TABLE_H_
#define DOVETAIL_KERNELS_KERNEL_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"
#include "kernels/table.h"

namespace dovetail::kernels {

// Elements per activation block that products with `type` read: 32, 256, 16 (NVFP4), or 0 for
// float weights.
int32_t ActivationBlock(WeightType type);

// Floats of scratch that one thread's attention() slice needs.
int64_t AttentionScratchFloats(const KvShape& shape);
// Floats of one head and split in AttentionArgs::parts.
int64_t AttentionPartFloats(const KvShape& shape);

// f32 cosines and sines of position * inv_freq[i], times `factor`: cos_sin[0 .. n) and [n .. 2n).
// Plain IEEE double arithmetic of our own: the same bits on every machine.
void RopeAngles(int32_t position, const float* inv_freq, int32_t n, float factor, float* cos_sin);

// The table of `isa`, or nullptr where this build or this processor lacks it, or where Linux
// refuses the registers (AMX: it is asked for this process when tables are first looked for).
const KernelTable* FindTable(Isa isa);
// What DOVETAIL_ISA asks for, else the best that this processor can run. Errors name the value, the
// accepted ones, and what the processor lacks.
absl::StatusOr<const KernelTable*> SelectTable(absl::string_view dovetail_isa);
// From the plainest to the best.
std::vector<const KernelTable*> AvailableTables();

// "avx2 fma f16c avx512f ... amx_int8": what cpuid says, for registration and bug reports.
std::string CpuFeatures();

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_KERNEL_TABLE_H_
