// A gRPC status that says when to come again. Stateless; thread-safe.
#ifndef DOVETAIL_COORDINATOR_SERVICE_RETRY_STATUS_H_
#define DOVETAIL_COORDINATOR_SERVICE_RETRY_STATUS_H_

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace grpc {
class Status;
}  // namespace grpc

namespace dovetail::coordinator {

// As transport::ToGrpcStatus; kResourceExhausted carries google.rpc.RetryInfo in its details.
grpc::Status ToGrpcStatusWithRetry(const absl::Status& status, absl::Duration retry_after);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_RETRY_STATUS_H_
