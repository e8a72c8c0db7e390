// GenerateRequest of the proto to GenerationRequest. Pure functions.
#ifndef DOVETAIL_COORDINATOR_SERVICE_GENERATE_REQUEST_H_
#define DOVETAIL_COORDINATOR_SERVICE_GENERATE_REQUEST_H_

#include "absl/status/statusor.h"
#include "coordinator/generation_request.h"

namespace dovetail::v1 {
class GenerateRequest;
}  // namespace dovetail::v1

namespace dovetail::coordinator {

inline constexpr uint32_t kMaxGrpcChoices = 16;

// InvalidArgument names the field. The number of choices and the deadline are the caller's.
absl::StatusOr<GenerationRequest> FromProto(const v1::GenerateRequest& proto);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_GENERATE_REQUEST_H_
