// absl::Status to grpc::Status and back: the codes are the same numbers, the message travels as it
// is. Stateless; thread-safe.
#ifndef DOVETAIL_TRANSPORT_STATUS_CONVERT_H_
#define DOVETAIL_TRANSPORT_STATUS_CONVERT_H_

#include "absl/status/status.h"

namespace grpc {
class Status;
}  // namespace grpc

namespace dovetail::transport {

grpc::Status ToGrpcStatus(const absl::Status& status);
// A code that no version of gRPC knows becomes kUnknown.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace dovetail::transport

#endif  // DOVETAIL_TRANSPORT_STATUS_CONVERT_H_
