// ClusterService: the gRPC door of the workers. Each Attach stream becomes a WorkerLink of the
// Cluster.
#ifndef DOVETAIL_COORDINATOR_SERVICE_CLUSTER_SERVICE_H_
#define DOVETAIL_COORDINATOR_SERVICE_CLUSTER_SERVICE_H_

#include <memory>

#include "coordinator/cluster.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

// `cluster` outlives the server that the service is registered with.
std::unique_ptr<grpc::Service> MakeClusterService(Cluster* cluster);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_CLUSTER_SERVICE_H_
