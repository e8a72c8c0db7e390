// ClusterService: the gRPC door of the workers. Each Attach stream becomes a WorkerLink of the
// Cluster of the model that its first message names.
#ifndef DOVETAIL_COORDINATOR_SERVICE_CLUSTER_SERVICE_H_
#define DOVETAIL_COORDINATOR_SERVICE_CLUSTER_SERVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/cluster.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

// Whose workers those of `model` are; what is refused says why. Any thread. Clusters outlive the
// server that the service is registered with.
using ClusterFinder = std::function<absl::StatusOr<Cluster*>(const std::string& model)>;

std::unique_ptr<grpc::Service> MakeClusterService(ClusterFinder find);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_CLUSTER_SERVICE_H_
