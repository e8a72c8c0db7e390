// InferenceService: the gRPC door of clients: Generate, Embed, Tokenize, Detokenize, ListModels.
#ifndef DOVETAIL_COORDINATOR_SERVICE_INFERENCE_SERVICE_H_
#define DOVETAIL_COORDINATOR_SERVICE_INFERENCE_SERVICE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "absl/time/time.h"
#include "coordinator/api_keys.h"
#include "coordinator/http/retry_estimator.h"
#include "coordinator/model_directory.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace dovetail::coordinator {

// How long the calls of each model took lately. Thread-safe.
class CallTimes {
 public:
  void Add(const ModelEntry& model, absl::Duration taken);
  // When a client that found the model's queue full should come again.
  absl::Duration RetryAfter(const ModelEntry& model);

 private:
  std::mutex mutex_;
  std::map<const ModelEntry*, RetryEstimator> estimators_;  // guarded by mutex_
};

struct InferenceOptions {
  const ModelDirectory* models = nullptr;              // borrowed, outlives the server
  const ApiKeys* keys = nullptr;                       // borrowed; null: everybody may call
  absl::Duration request_timeout = absl::Minutes(10);  // for calls with a later deadline, or none
  // Text of one stream that its client has not read yet; more, and the generation is cancelled.
  size_t max_unread_bytes = 1 << 20;
  // For RetryInfo; made by MakeInferenceService.
  std::shared_ptr<CallTimes> times;
};

std::unique_ptr<grpc::Service> MakeInferenceService(const InferenceOptions& options);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SERVICE_INFERENCE_SERVICE_H_
