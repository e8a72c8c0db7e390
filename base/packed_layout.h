// PackedLayout: how weights lie in a worker's memory, and how many bytes that takes.
//
// kRaw       rows as GGUF stores them (the scalar reference computes on them; vectors too, and
//            embeddings whose rows no head has).
// kP16       panels of 16 output rows, k in groups of 4 bytes: one stream per panel, read by AVX2,
//            AVX-512 VNNI and AMX alike (kernels/cpu/p16.h describes it byte by byte). Rows are
//            padded to 16. Float weights stay as they are stored.
// kInPlace   not in the worker's memory at all: matrices are read from the pages of the mapped
//            file, for each step anew (kernels/in_place.h). What cannot be read there is kRaw.
// kP16Device  in a GPU's memory: matrices as kP16. Such embeddings are read from the pages of the
//            mapped file, by the host.
// The planner needs the sizes and must not include kernels/, hence this file in base/. Pure
// functions.
#ifndef DOVETAIL_BASE_PACKED_LAYOUT_H_
#define DOVETAIL_BASE_PACKED_LAYOUT_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "base/weight_type.h"

namespace dovetail {

enum class PackedLayout : uint32_t { kRaw = 0, kP16 = 1, kInPlace = 2, kP16Device = 3 };

inline constexpr int kPanelRows = 16;

absl::string_view PackedLayoutName(PackedLayout layout);  // "raw", "p16", "in_place", ..

// Bytes of one block of one row of `type` in `layout` (averaged over the panel; exact, no
// remainder).
int64_t PackedBlockBytes(PackedLayout layout, WeightType type);

// Whether products with `type` in `layout` have a kernel of their own instruction set. The others
// run on the plain loops of the reference: right, and slow, which a plan should say.
bool HasFastKernel(PackedLayout layout, WeightType type);

// Bytes of a [rows, cols] matrix, cols a multiple of the type's block; a multiple of 64.
int64_t PackedBytes(PackedLayout layout, WeightType type, int64_t rows, int64_t cols);

// Room for what a thread that reads matrices in place packs at a time: panels of rows of `cols`
// elements, of any type. A multiple of 64.
inline constexpr int kInPlacePanels = 2;
int64_t InPlaceScratchBytes(int64_t cols);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_PACKED_LAYOUT_H_
