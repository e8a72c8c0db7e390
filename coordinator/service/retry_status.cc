#include "coordinator/service/retry_status.h"

#include <grpcpp/support/status.h>

#include <algorithm>
#include <string>

#include "dovetail/v1/error_details.pb.h"
#include "transport/status_convert.h"

namespace dovetail::coordinator {

grpc::Status ToGrpcStatusWithRetry(const absl::Status& status, absl::Duration retry_after) {
  if (status.code() != absl::StatusCode::kResourceExhausted) {
    return transport::ToGrpcStatus(status);
  }
  v1::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(
      absl::ToInt64Seconds(absl::Ceil(std::max(retry_after, absl::Seconds(1)), absl::Seconds(1))));
  v1::RpcStatus details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  google::protobuf::Any* any = details.add_details();
  any->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  any->set_value(retry.SerializeAsString());
  return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, std::string(status.message()),
                      details.SerializeAsString());
}

}  // namespace dovetail::coordinator
