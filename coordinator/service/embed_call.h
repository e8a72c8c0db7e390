// One Embed call, between EmbeddingService and gRPC.
#ifndef DOVETAIL_COORDINATOR_SERVICE_EMBED_CALL_H_
#define DOVETAIL_COORDINATOR_SERVICE_EMBED_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/time/time.h"
#include "coordinator/service/inference_service.h"
#include "dovetail/v1/inference.pb.h"

namespace dovetail::coordinator {

// The reactor of the call; gRPC owns it. A client that cancels has the work cancelled. `options`,
// `model`, which makes embeddings, and `response` outlive the call.
grpc::ServerUnaryReactor* StartEmbedding(const InferenceOptions& options, const ModelEntry& model,
                                         const v1::EmbedRequest& request, const std::string& tenant,
                                         absl::Time deadline, v1::EmbedResponse* response);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_EMBED_CALL_H_
