// ClusterMember: what a worker said that it is when it registered, checked.
#ifndef DOVETAIL_COORDINATOR_CLUSTER_MEMBER_H_
#define DOVETAIL_COORDINATOR_CLUSTER_MEMBER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/placement/device_info.h"

namespace dovetail::v1 {
class Register;
}  // namespace dovetail::v1

namespace dovetail::coordinator {

// The version of ClusterService that this coordinator speaks.
inline constexpr uint32_t kClusterProtocolVersion = 3;

struct ClusterMember {
  DeviceInfo device;  // memory_bytes: what the worker found available
  uint64_t incarnation = 0;
  int64_t pid = 0;
  std::string isa;
  std::string description;  // of a GPU
  double read_bandwidth_gb_per_s = 0;
};

// FailedPrecondition: another protocol version or run directory. InvalidArgument: a name that is
// not among `names` (they are listed), or a field out of range.
absl::StatusOr<ClusterMember> CheckRegister(const v1::Register& message,
                                            const std::vector<std::string>& names,
                                            absl::string_view run_dir_id);

// True when a plan made for `a` is right for `b` as well: a restarted worker usually is the same
// device.
bool SameDevice(const ClusterMember& a, const ClusterMember& b);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CLUSTER_MEMBER_H_
