#include "coordinator/http/openai_call.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "coordinator/http/random_id.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kMaxLoggedNameBytes = 64;

HttpResponse StreamHead() {
  HttpResponse head;
  head.headers.emplace_back("Content-Type", "text/event-stream; charset=utf-8");
  head.headers.emplace_back("Cache-Control", "no-cache");
  head.headers.emplace_back("X-Accel-Buffering", "no");  // nginx would hold events back
  return head;
}

}  // namespace

// Outlives the call as long as the engine holds it; events for a call that is gone are dropped.
class OpenAiCall::Sink : public EventSink {
 public:
  Sink(std::weak_ptr<OpenAiCall> call, std::shared_ptr<HttpExecutor> executor, int index)
      : call_(std::move(call)), executor_(std::move(executor)), index_(index) {}

  void OnEvent(const GenerationEvent& event) override {
    executor_->OnIoThread([call = call_, index = index_, event] {
      if (auto locked = call.lock()) locked->OnEvent(index, event);
    });
  }

 private:
  const std::weak_ptr<OpenAiCall> call_;
  const std::shared_ptr<HttpExecutor> executor_;
  const int index_;
};

OpenAiCall::OpenAiCall(OpenAiContext* context, OpenAiEndpoint endpoint, HttpRequest request,
                       std::shared_ptr<HttpReply> reply)
    : context_(context),
      endpoint_(endpoint),
      request_(std::move(request)),
      reply_(std::move(reply)) {}

void OpenAiCall::Begin() {
  context_->executor->OnWorkThread([self = shared_from_this()] { self->ParseAndStart(); });
}

void OpenAiCall::ParseAndStart() {
  if (closed_) return;
  OpenAiRequest request;
  if (std::optional<ApiError> error = Parse(&request)) {
    context_->executor->OnIoThread(
        [self = shared_from_this(), error = *std::move(error)] { self->Fail(error); });
    return;
  }
  StartAll(std::move(request));
}

std::optional<ApiError> OpenAiCall::Parse(OpenAiRequest* request) {
  if (std::optional<ApiError> error = ParseOpenAiRequest(endpoint_, request_.body, request)) {
    return error;
  }
  for (const std::string& name : request->unknown_fields) {
    if (!context_->unknown_fields.ShouldLog(name)) continue;
    LogInfo(absl::StrCat("unknown request field `",
                         absl::Utf8SafeCHexEscape(name.substr(0, kMaxLoggedNameBytes)),
                         "` is accepted and ignored"));
  }
  GenerationService* generation = context_->api.generation;
  if (generation == nullptr) {
    return ErrorFromStatus(
        absl::UnavailableError("this model has no vocabulary: it cannot serve text"), 0);
  }
  const absl::Status known = generation->CheckModel(request->model);
  if (!known.ok()) return ErrorFromStatus(known, 0);
  return std::nullopt;
}

void OpenAiCall::StartAll(OpenAiRequest request) {
  AnswerIdentity identity;
  identity.endpoint = endpoint_;
  identity.id =
      absl::StrCat(endpoint_ == OpenAiEndpoint::kChat ? "chatcmpl-" : "cmpl-", RandomId());
  identity.created = absl::ToUnixSeconds(request_.received);
  identity.model = context_->api.model_name;
  identity.system_fingerprint = context_->api.system_fingerprint;
  identity.include_usage = request.include_usage;
  identity.logprobs = request.generations[0].logprobs.has_value();

  const std::shared_ptr<OpenAiCall> self = shared_from_this();
  const int num_choices = static_cast<int>(request.generations.size());
  // Before Start, so that it is known on the I/O thread before any event comes there.
  context_->executor->OnIoThread([self, stream = request.stream, identity, num_choices,
                                  per_prompt = request.choices_per_prompt] {
    self->OnParsed(stream, identity, num_choices, per_prompt);
  });
  for (int i = 0; i < num_choices && !closed_; ++i) {
    GenerationRequest& generation = request.generations[i];
    generation.deadline = request_.received + context_->request_timeout;
    context_->api.generation->Start(
        std::move(generation), std::make_shared<Sink>(weak_from_this(), context_->executor, i),
        [self, i, executor = context_->executor](absl::StatusOr<RequestId> id) {
          executor->OnIoThread([self, i, id = std::move(id)] { self->OnStarted(i, id); });
        });
  }
}

void OpenAiCall::OnParsed(bool stream, AnswerIdentity identity, int num_choices, int per_prompt) {
  stream_ = stream;
  choices_per_prompt_ = per_prompt;
  include_usage_ = identity.include_usage;
  encoder_.emplace(std::move(identity));
  choices_.resize(num_choices);
}

void OpenAiCall::OnStarted(int index, const absl::StatusOr<RequestId>& id) {
  if (!id.ok()) {
    const EngineStats stats =
        context_->api.engine != nullptr ? context_->api.engine->stats() : EngineStats();
    Fail(ErrorFromStatus(id.status(), context_->retry.Seconds(stats)));
    return;
  }
  if (closed_) {
    context_->api.generation->Cancel(*id);
    return;
  }
  choices_[index].id = *id;
}

void OpenAiCall::OnEvent(int index, const GenerationEvent& event) {
  if (closed_) return;
  Choice& choice = choices_[index];
  if (event.finished &&
      (event.reason == FinishReason::kError || event.reason == FinishReason::kCancelled)) {
    choice.finished = true;
    const absl::Status status =
        event.status.ok() ? absl::CancelledError("the generation was cancelled") : event.status;
    Fail(ErrorFromStatus(status, 1));
    return;
  }
  work_began_ = true;
  if (stream_) {
    OpenStream();
    WriteRoles();
    if (!event.empty()) reply_->Write(encoder_->DeltaEvent(index, event, &choice.text_offset));
  } else {
    choice.completed.answer.Add(event);
  }
  if (!event.finished) return;
  choice.finished = true;
  choice.completed.reason = event.reason;
  choice.usage = event.usage;
  if (stream_) reply_->Write(encoder_->FinishEvent(index, event.reason));
  for (const Choice& other : choices_) {
    if (!other.finished) return;
  }
  FinishAll();
}

void OpenAiCall::OpenStream() {
  if (stream_open_) return;
  stream_open_ = true;
  reply_->StartStream(StreamHead());
}

// All at once and in order: a client library takes the first chunk that it sees for choice 0.
void OpenAiCall::WriteRoles() {
  if (roles_written_) return;
  roles_written_ = true;
  if (endpoint_ != OpenAiEndpoint::kChat) return;
  for (size_t i = 0; i < choices_.size(); ++i) {
    reply_->Write(encoder_->RoleEvent(static_cast<int>(i)));
  }
}

void OpenAiCall::FinishAll() {
  RequestUsage usage;
  std::vector<CompletedChoice> answers;
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    // A prompt counts once, however many answers it got.
    if (i % static_cast<size_t>(choices_per_prompt_) == 0) {
      usage.prompt_tokens += choice.usage.prompt_tokens;
      usage.cached_tokens += choice.usage.cached_tokens;
    }
    usage.completion_tokens += choice.usage.completion_tokens;
    usage.reasoning_tokens += choice.usage.reasoning_tokens;
    answers.push_back(std::move(choice.completed));
  }
  const absl::Duration taken = absl::Now() - request_.received;
  context_->retry.AddFinished(absl::ToDoubleSeconds(taken));
  const std::shared_ptr<HttpReply> reply = Close();
  reply->Annotate(absl::StrCat(usage.prompt_tokens, "+", usage.completion_tokens, " tokens"));
  if (stream_) {
    if (include_usage_) reply->Write(encoder_->UsageEvent(usage));
    reply->Write(kSseDone);
    reply->Finish();
    return;
  }
  HttpResponse response = JsonResponse(200, encoder_->Completion(answers, usage));
  response.headers.emplace_back("openai-processing-ms",
                                absl::StrCat(absl::ToInt64Milliseconds(taken)));
  reply->Send(std::move(response));
}

void OpenAiCall::Fail(const ApiError& error) {
  if (closed_) return;
  CancelAll();
  const std::shared_ptr<HttpReply> reply = Close();
  reply->Annotate(error.message);
  if (stream_open_) {
    reply->Write(OpenAiEncoder::ErrorEvent(error));
    reply->Finish();
    return;
  }
  HttpResponse response = ErrorResponse(error);
  // The official clients repeat what failed with 5xx; what failed after minutes of work should not
  // be.
  if (work_began_ && error.retry_after_seconds == 0) {
    response.headers.emplace_back("x-should-retry", "false");
  }
  reply->Send(std::move(response));
}

void OpenAiCall::CancelAll() {
  for (const Choice& choice : choices_) {
    if (choice.id.has_value() && !choice.finished) context_->api.generation->Cancel(*choice.id);
  }
}

std::shared_ptr<HttpReply> OpenAiCall::Close() {
  closed_ = true;
  return std::move(reply_);
}

void OpenAiCall::OnSilence() {
  if (closed_ || !stream_) return;
  OpenStream();
  reply_->Write(kSseKeepAlive);
}

void OpenAiCall::OnGone() {
  if (closed_) return;
  CancelAll();
  Close();
}

void OpenAiCall::OnShutdown() {
  Fail(ErrorFromStatus(absl::UnavailableError("the server is shutting down"), 0));
}

}  // namespace dovetail::coordinator
