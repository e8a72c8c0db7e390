// GpuLinks: how rows pass between GPU workers that follow each other on the route.
#ifndef DOVETAIL_BASE_GPU_LINKS_H_
#define DOVETAIL_BASE_GPU_LINKS_H_

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace dovetail {

enum class GpuLinks : uint32_t {
  kHost = 0,  // by the host's memory, with the frame
  kAuto = 1,  // as kIpc where both GPUs and both processes allow it, else as kHost
  kIpc = 2,   // the receiver copies from the sender's memory (CUDA IPC)
  kNccl = 3,
};

inline constexpr std::array<absl::string_view, 4> kGpuLinksNames = {"host", "auto", "ipc", "nccl"};

inline absl::string_view GpuLinksName(GpuLinks links) {
  return kGpuLinksNames[static_cast<uint32_t>(links)];
}
inline bool FindGpuLinks(absl::string_view name, GpuLinks* links) {
  for (uint32_t i = 0; i < kGpuLinksNames.size(); ++i) {
    if (kGpuLinksNames[i] != name) continue;
    *links = static_cast<GpuLinks>(i);
    return true;
  }
  return false;
}

}  // namespace dovetail

#endif  // DOVETAIL_BASE_GPU_LINKS_H_
