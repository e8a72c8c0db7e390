// Who makes a gRPC call: the bearer of the key in the metadata `authorization: Bearer KEY`.
#ifndef DOVETAIL_COORDINATOR_SERVICE_CALL_AUTH_H_
#define DOVETAIL_COORDINATOR_SERVICE_CALL_AUTH_H_

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/api_keys.h"

namespace dovetail::coordinator {

// The tenant's name, "" where `keys` is null or requires none; Unauthenticated otherwise.
absl::StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context,
                                     const ApiKeys* keys);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_CALL_AUTH_H_
