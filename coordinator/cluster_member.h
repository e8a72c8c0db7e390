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
inline constexpr uint32_t kClusterProtocolVersion = 4;

struct ClusterMember {
  DeviceInfo device;  // memory_bytes: what the worker found available
  uint64_t incarnation = 0;
  int64_t pid = 0;
  std::string isa;
  std::string description;  // of a GPU
  double read_bandwidth_gb_per_s = 0;
  std::string data_address;  // of a worker of another host: HOST:PORT where it takes connections
};

// Who may register, and what proves that a worker belongs here: that it sees the run directory, or,
// of another host, that it has the cluster's key ("": no such worker may).
struct Admission {
  std::vector<std::string> names;
  std::string run_dir_id;
  std::string cluster_key;
};

// FailedPrecondition: another protocol version or run directory. PermissionDenied: not the
// cluster's key. InvalidArgument: a name that is not among those (they are listed), or a field out
// of range. `peer_host`: where the worker dials from, "" where that is not known.
absl::StatusOr<ClusterMember> CheckRegister(const v1::Register& message, const Admission& admission,
                                            absl::string_view peer_host = "");

// True when a plan made for `a` is right for `b` as well: a restarted worker usually is the same
// device.
bool SameDevice(const ClusterMember& a, const ClusterMember& b);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_CLUSTER_MEMBER_H_
