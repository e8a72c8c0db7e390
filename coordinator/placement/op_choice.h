// Op choice: which of our implementations computes a module on a device, and what happens where a
// rule asks for one that the device cannot run. All of them give the same bits. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_OP_CHOICE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_OP_CHOICE_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/route.h"
#include "coordinator/placement/device_info.h"

namespace dovetail::coordinator {

// Kernels of matrix products: CPU panels of 16 rows; a GPU's 4-byte dot product; its integer matrix
// units (compute capability 7.5).
enum class Kernel { kP16, kDp4a, kImma };

absl::string_view KernelName(Kernel kernel);  // "imma"
absl::Span<const absl::string_view> KernelNames();
std::optional<Kernel> FindKernel(absl::string_view name);

bool CanRun(Kernel kernel, const DeviceInfo& device);
Kernel BestKernel(const DeviceInfo& device);

// What the plan shows: "attention.p16"; "norm" and "embedding" for what multiplies no matrix.
// `preference` is a kernel's name or empty; the device's best takes its place where it cannot run.
std::string OpName(const Op& op, absl::string_view preference, const DeviceInfo& device);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_OP_CHOICE_H_
