#include "coordinator/service/embed_call.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "coordinator/generation_request.h"
#include "coordinator/service/retry_status.h"
#include "transport/status_convert.h"

namespace dovetail::coordinator {
namespace {

class EmbedCall : public grpc::ServerUnaryReactor, public std::enable_shared_from_this<EmbedCall> {
 public:
  EmbedCall(const InferenceOptions& options, const ModelEntry& model, v1::EmbedResponse* response)
      : options_(options), model_(model), response_(response) {}

  void Begin(EmbeddingRequest request) {
    self_ = shared_from_this();
    const uint64_t id = model_.embeddings->Start(
        std::move(request),
        [self = self_](const absl::StatusOr<Embeddings>& result) { self->OnResult(result); });
    absl::MutexLock lock(&mutex_);
    id_ = id;
    if (cancelled_) model_.embeddings->Cancel(id);
  }

  void Refuse(const absl::Status& status) {
    self_ = shared_from_this();
    Finish(transport::ToGrpcStatus(status));
  }

  void OnCancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (id_ != 0) model_.embeddings->Cancel(id_);
  }

  void OnDone() override { const std::shared_ptr<EmbedCall> last = std::move(self_); }

 private:
  void OnResult(const absl::StatusOr<Embeddings>& result) {
    if (!result.ok()) {
      return Finish(ToGrpcStatusWithRetry(result.status(), options_.times->RetryAfter(model_)));
    }
    for (const std::vector<float>& vector : result->vectors) {
      response_->add_embeddings()->mutable_values()->Add(vector.begin(), vector.end());
    }
    response_->mutable_usage()->set_prompt_tokens(static_cast<uint32_t>(result->prompt_tokens));
    Finish(grpc::Status::OK);
  }

  const InferenceOptions& options_;
  const ModelEntry& model_;
  v1::EmbedResponse* const response_;
  std::shared_ptr<EmbedCall> self_;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t id_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::StatusOr<EmbeddingRequest> FromProto(const v1::EmbedRequest& proto) {
  EmbeddingRequest request;
  const int count = proto.inputs_size();
  if (count < 1 || count > static_cast<int>(EmbeddingService::kMaxInputs)) {
    return FieldError("inputs", absl::StrCat("must have 1 to ", EmbeddingService::kMaxInputs,
                                             " elements, got ", count));
  }
  for (const v1::EmbedInput& input : proto.inputs()) {
    if (input.has_token_ids()) {
      request.inputs.emplace_back(
          std::vector<int32_t>(input.token_ids().ids().begin(), input.token_ids().ids().end()));
    } else {
      request.inputs.emplace_back(input.text());
    }
  }
  request.truncate = proto.truncate();
  return request;
}

}  // namespace

grpc::ServerUnaryReactor* StartEmbedding(const InferenceOptions& options, const ModelEntry& model,
                                         const v1::EmbedRequest& proto, const std::string& tenant,
                                         absl::Time deadline, v1::EmbedResponse* response) {
  auto call = std::make_shared<EmbedCall>(options, model, response);
  absl::StatusOr<EmbeddingRequest> request = FromProto(proto);
  if (request.ok()) {
    request->tenant = tenant;
    request->deadline = std::min(deadline, absl::Now() + options.request_timeout);
    call->Begin(*std::move(request));
  } else {
    call->Refuse(request.status());
  }
  return call.get();
}

}  // namespace dovetail::coordinator
