// InferenceService: the gRPC door of clients: Generate, Embed, Tokenize, Detokenize, ListModels.
#ifndef DOVETAIL_COORDINATOR_SERVICE_INFERENCE_SERVICE_H_
#define DOVETAIL_COORDINATOR_SERVICE_INFERENCE_SERVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/time/time.h"
#include "coordinator/api_keys.h"
#include "coordinator/embedding.h"
#include "coordinator/generation.h"
#include "coordinator/http/retry_estimator.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

class CallTimes {
 public:
  void Add(absl::Duration taken);
  // When a client that found the queue full should come again.
  absl::Duration RetryAfter(const EngineStats& stats) const;

 private:
  mutable std::mutex mutex_;
  RetryEstimator estimator_;  // guarded by mutex_
};

struct InferenceOptions {
  GenerationService* generation = nullptr;             // borrowed, outlives the server
  EmbeddingService* embeddings = nullptr;              // the same; null: embeddings are refused
  const ApiKeys* keys = nullptr;                       // borrowed; null: everybody may call
  int64_t file_bytes = 0;                              // of the model, for ListModels
  absl::Duration request_timeout = absl::Minutes(10);  // for calls with a later deadline, or none
  // Text of one stream that its client has not read yet; more, and the generation is cancelled.
  size_t max_unread_bytes = 1 << 20;
  // How long calls took lately, for RetryInfo; made by MakeInferenceService.
  std::shared_ptr<CallTimes> times;
};

std::unique_ptr<grpc::Service> MakeInferenceService(const InferenceOptions& options);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_INFERENCE_SERVICE_H_
