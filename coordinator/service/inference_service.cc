#include "coordinator/service/inference_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/service/call_auth.h"
#include "coordinator/service/embed_call.h"
#include "coordinator/service/generate_call.h"
#include "dovetail/v1/inference.grpc.pb.h"
#include "transport/status_convert.h"

namespace dovetail::coordinator {
namespace {

class InferenceServiceImpl final : public v1::InferenceService::CallbackService {
 public:
  explicit InferenceServiceImpl(const InferenceOptions& options) : options_(options) {
    options_.times = std::make_shared<CallTimes>();
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    auto call = std::make_shared<GenerateCall>(options_);
    call->Begin(*request, absl::FromChrono(context->deadline()), TenantOf(*context, options_.keys));
    return call.get();
  }

  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context,
                                  const v1::EmbedRequest* request,
                                  v1::EmbedResponse* response) override {
    const absl::StatusOr<std::string> tenant = TenantOf(*context, options_.keys);
    if (!tenant.ok()) return Reply(context, tenant.status());
    const auto model = options_.models->Find(request->model());
    if (!model.ok()) return Reply(context, model.status());
    if ((*model)->embeddings == nullptr) {
      return Reply(context, absl::UnimplementedError("this server makes no embeddings"));
    }
    return StartEmbedding(options_, **model, *request, *tenant,
                          absl::FromChrono(context->deadline()), response);
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    absl::Status status = TenantOf(*context, options_.keys).status();
    if (status.ok()) status = TokenizeText(*request, response);
    return Reply(context, status);
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    absl::Status status = TenantOf(*context, options_.keys).status();
    if (status.ok()) status = DetokenizeIds(*request, response);
    return Reply(context, status);
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest*,
                                       v1::ListModelsResponse* response) override {
    if (absl::Status s = TenantOf(*context, options_.keys).status(); !s.ok()) {
      return Reply(context, s);
    }
    for (const ModelEntry& model : options_.models->models()) Fill(model, response->add_models());
    return Reply(context, absl::OkStatus());
  }

 private:
  static void Fill(const ModelEntry& model, v1::Model* out) {
    const GenerationService& generation = *model.generation;
    out->set_id(model.name);
    for (const std::string& alias : model.aliases) out->add_aliases(alias);
    out->set_architecture(generation.config().architecture);
    out->set_context_length_tokens(static_cast<uint32_t>(generation.context_length()));
    out->set_vocab_size(static_cast<uint32_t>(generation.config().vocab_size));
    out->set_parameters(static_cast<uint64_t>(generation.config().parameter_count));
    out->set_file_bytes(static_cast<uint64_t>(model.facts.file_bytes));
  }

  static grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context,
                                         const absl::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(transport::ToGrpcStatus(status));
    return reactor;
  }

  absl::Status TokenizeText(const v1::TokenizeRequest& request,
                            v1::TokenizeResponse* response) const {
    const auto model = options_.models->Find(request.model());
    if (!model.ok()) return model.status();
    auto ids = (*model)->generation->tokenizer().Encode(
        request.text(),
        {.add_special = request.add_special(), .parse_special = request.parse_special()});
    if (!ids.ok()) return ids.status();
    response->mutable_ids()->Add(ids->begin(), ids->end());
    return absl::OkStatus();
  }

  absl::Status DetokenizeIds(const v1::DetokenizeRequest& request,
                             v1::DetokenizeResponse* response) const {
    const auto model = options_.models->Find(request.model());
    if (!model.ok()) return model.status();
    const model::Tokenizer& tokenizer = (*model)->generation->tokenizer();
    if (!tokenizer.has_vocab()) {
      return absl::FailedPreconditionError("the model file has no vocabulary");
    }
    for (int i = 0; i < request.ids_size(); ++i) {
      if (request.ids(i) >= 0 && request.ids(i) < tokenizer.vocab_size()) continue;
      return absl::InvalidArgumentError(absl::StrCat("`ids[", i, "]` must be from 0 to ",
                                                     tokenizer.vocab_size() - 1, ", got ",
                                                     request.ids(i)));
    }
    response->set_text(tokenizer.Decode(
        absl::MakeConstSpan(request.ids().data(), static_cast<size_t>(request.ids_size())),
        request.special()));
    return absl::OkStatus();
  }

  InferenceOptions options_;
};

}  // namespace

void CallTimes::Add(const ModelEntry& model, absl::Duration taken) {
  std::lock_guard<std::mutex> lock(mutex_);
  estimators_[&model].AddFinished(absl::ToDoubleSeconds(taken));
}

absl::Duration CallTimes::RetryAfter(const ModelEntry& model) {
  const EngineStats stats = model.stats();
  std::lock_guard<std::mutex> lock(mutex_);
  return absl::Seconds(estimators_[&model].Seconds(stats));
}

std::unique_ptr<grpc::Service> MakeInferenceService(const InferenceOptions& options) {
  return std::make_unique<InferenceServiceImpl>(options);
}

}  // namespace dovetail::coordinator
