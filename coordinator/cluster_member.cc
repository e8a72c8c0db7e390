#include "coordinator/cluster_member.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/cluster_key.h"
#include "base/route.h"
#include "base/status_macros.h"
#include "base/weight_type.h"
#include "dovetail/v1/cluster.pb.h"
#include "transport/tcp_socket.h"

namespace dovetail::coordinator {
namespace {

constexpr uint32_t kMaxThreads = 4096;
constexpr uint32_t kLeastComputeCapability = 75;

absl::StatusOr<PackedLayout> ParseLayout(absl::string_view name) {
  for (PackedLayout layout :
       {PackedLayout::kRaw, PackedLayout::kP16, PackedLayout::kInPlace, PackedLayout::kP16Device}) {
    if (PackedLayoutName(layout) == name) return layout;
  }
  return absl::InvalidArgumentError(absl::StrCat("packed_layout `", name, "` is not known"));
}

// Types that this coordinator does not know are left out: it would never plan them.
std::vector<WeightType> ParseWeightTypes(const v1::Register& message) {
  std::vector<WeightType> types;
  for (WeightType type : SupportedWeightTypes()) {
    for (const std::string& name : message.weight_types()) {
      if (InfoOf(type).name == name) {
        types.push_back(type);
        break;
      }
    }
  }
  return types;
}

// Of whom it was made sure that the name is one of the configured.
absl::Status CheckBelongsHere(const v1::Register& message, const Admission& admission) {
  const bool remote = !HostOf(message.worker()).empty();
  if (remote && (admission.cluster_key.empty() ||
                 !EqualSecrets(message.cluster_key(), admission.cluster_key))) {
    return absl::PermissionDeniedError(
        absl::StrCat("worker ", message.worker(),
                     " does not show the cluster's key: its --cluster-key-file must say the same "
                     "as the coordinator's `cluster_key_file`"));
  }
  if (!remote && message.run_dir_id() != admission.run_dir_id) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", message.worker(),
                     " uses another run directory than the coordinator: start both with the same "
                     "--run-dir, on storage that they share"));
  }
  return absl::OkStatus();
}

absl::Status CheckIdentity(const v1::Register& message, const Admission& admission) {
  if (message.protocol_version() != kClusterProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "worker ", message.worker(), " speaks cluster protocol ", message.protocol_version(),
        ", this coordinator speaks ", kClusterProtocolVersion, ": use the same release for both"));
  }
  const std::vector<std::string>& names = admission.names;
  if (std::find(names.begin(), names.end(), message.worker()) == names.end()) {
    return absl::InvalidArgumentError(absl::StrCat("worker name `", message.worker(),
                                                   "` is not one of the configured workers (",
                                                   absl::StrJoin(names, ", "), ")"));
  }
  return CheckBelongsHere(message, admission);
}

// Where a worker of another host takes connections; "" of one of this host.
absl::StatusOr<std::string> DataAddress(const v1::Register& message, absl::string_view peer_host) {
  if (HostOf(message.worker()).empty()) return "";
  std::string text = message.data_address();
  if (absl::StartsWith(text, ":") && !peer_host.empty()) {
    const bool bare_ipv6 = peer_host.find(':') != absl::string_view::npos;
    text = absl::StrCat(bare_ipv6 ? "[" : "", peer_host, bare_ipv6 ? "]" : "", text);
  }
  const absl::StatusOr<transport::TcpAddress> address = transport::ParseTcpAddress(text);
  if (!address.ok() || address->port == 0) {
    return absl::InvalidArgumentError(absl::StrCat("worker ", message.worker(),
                                                   " can be reached nowhere (`", text,
                                                   "`): give it --data-address HOST:PORT"));
  }
  return address->text();
}

// A name says of what kind a worker is, and a GPU must be one that kernels are compiled for.
absl::StatusOr<DeviceKind> CheckKind(const v1::Register& message) {
  const std::optional<DeviceKind> kind = KindOf(message.worker());
  if (!kind || !absl::StartsWith(DeviceOf(message.worker()), absl::StrCat(message.kind(), ":"))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker ", message.worker(), " says that it is a `", message.kind(), "` device"));
  }
  const uint32_t capability = message.compute_capability();
  if (*kind == DeviceKind::kCuda && capability < kLeastComputeCapability) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", message.worker(), ": ", message.device_description(),
                     " has compute capability ", capability / 10, ".", capability % 10,
                     "; GPU workers need 7.5 or later (docs/hardware.md)"));
  }
  return *kind;
}

}  // namespace

absl::StatusOr<ClusterMember> CheckRegister(const v1::Register& message, const Admission& admission,
                                            absl::string_view peer_host) {
  if (absl::Status s = CheckIdentity(message, admission); !s.ok()) return s;
  if (message.num_threads() < 1 || message.num_threads() > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_threads ", message.num_threads(), " is not in 1..", kMaxThreads));
  }
  absl::StatusOr<PackedLayout> layout = ParseLayout(message.packed_layout());
  if (!layout.ok()) return layout.status();
  ClusterMember member;
  member.device.name = message.worker();
  DT_ASSIGN_OR_RETURN(member.data_address, DataAddress(message, peer_host));
  DT_ASSIGN_OR_RETURN(member.device.kind, CheckKind(message));
  member.device.compute_capability = static_cast<int>(message.compute_capability());
  member.device.device_id = message.device_id();
  member.description = message.device_description();
  member.device.memory_bytes = static_cast<int64_t>(std::min<uint64_t>(
      message.memory_available_bytes(), std::numeric_limits<int64_t>::max() / 4));
  member.device.held_bytes = static_cast<int64_t>(
      std::min<uint64_t>(message.memory_held_bytes(), member.device.memory_bytes));
  member.device.num_threads = static_cast<int>(message.num_threads());
  member.device.layout = *layout;
  member.device.weight_types = ParseWeightTypes(message);
  if (member.device.weight_types.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker ", message.worker(), " computes with no weight type known here"));
  }
  member.incarnation = message.incarnation();
  member.pid = message.pid();
  member.device.numa_node = message.numa_node();
  member.isa = message.isa();
  member.read_bandwidth_gb_per_s = message.read_bandwidth_gb_per_s();
  member.device.bandwidth = 1e9 * member.read_bandwidth_gb_per_s;
  member.device.upload_bandwidth = 1e9 * message.upload_bandwidth_gb_per_s();
  return member;
}

bool SameDevice(const ClusterMember& a, const ClusterMember& b) {
  return a.device.compute_capability == b.device.compute_capability &&
         a.device.layout == b.device.layout && a.device.num_threads == b.device.num_threads &&
         a.device.weight_types == b.device.weight_types;
}

}  // namespace dovetail::coordinator
