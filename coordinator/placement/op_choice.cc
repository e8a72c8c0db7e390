#include "coordinator/placement/op_choice.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/placement/role.h"

namespace dovetail::coordinator {
namespace {

constexpr absl::string_view kNames[] = {"p16", "dp4a", "imma"};

constexpr Role kRoles[] = {Role::kEmbedding,     Role::kAttention, Role::kRouter, Role::kExperts,
                           Role::kSharedExperts, Role::kMlp,       Role::kNorm,   Role::kLmHead};

}  // namespace

absl::string_view KernelName(Kernel kernel) { return kNames[static_cast<int>(kernel)]; }

absl::Span<const absl::string_view> KernelNames() { return kNames; }

std::optional<Kernel> FindKernel(absl::string_view name) {
  const auto* at = std::find(std::begin(kNames), std::end(kNames), name);
  if (at == std::end(kNames)) return std::nullopt;
  return static_cast<Kernel>(at - kNames);
}

bool CanRun(Kernel kernel, const DeviceInfo& device) {
  if (kernel == Kernel::kP16) return !device.has_gpu_kernels();
  return device.has_gpu_kernels();  // from 7.5 on, which is the least that we take
}

Kernel BestKernel(const DeviceInfo& device) {
  return device.has_gpu_kernels() ? Kernel::kImma : Kernel::kP16;
}

std::string OpName(const Op& op, absl::string_view preference, const DeviceInfo& device) {
  const auto* role = std::find_if(std::begin(kRoles), std::end(kRoles),
                                  [&](Role candidate) { return HasRole(op, candidate); });
  DT_CHECK(role != std::end(kRoles));
  const absl::string_view name = RoleName(*role);
  if (*role == Role::kEmbedding || *role == Role::kNorm) return std::string(name);
  std::optional<Kernel> kernel = FindKernel(preference);
  if (!kernel.has_value() || !CanRun(*kernel, device)) kernel = BestKernel(device);
  return absl::StrCat(name, ".", KernelName(*kernel));
}

}  // namespace dovetail::coordinator
