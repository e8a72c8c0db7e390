#include "coordinator/http/generation_call.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kMaxLoggedNameBytes = 64;

}  // namespace

HttpHeaders EventStreamHeaders() {
  return {{"Content-Type", "text/event-stream; charset=utf-8"},
          {"Cache-Control", "no-cache"},
          {"X-Accel-Buffering", "no"}};  // nginx would hold events back
}

std::optional<ApiError> FindModel(const CallContext& context, absl::string_view name,
                                  const ModelEntry** model) {
  const absl::StatusOr<const ModelEntry*> found = context.api.models->Find(name);
  if (!found.ok()) return ErrorFromStatus(found.status(), 0);
  if ((*found)->generation == nullptr) {
    return ErrorFromStatus(
        absl::UnavailableError("this model has no vocabulary: it cannot serve text"), 0);
  }
  *model = *found;
  return std::nullopt;
}

// Outlives the call as long as the engine holds it; events for a call that is gone are dropped.
class GenerationCall::Sink : public EventSink {
 public:
  Sink(std::weak_ptr<GenerationCall> call, std::shared_ptr<HttpExecutor> executor, int index)
      : call_(std::move(call)), executor_(std::move(executor)), index_(index) {}

  void OnEvent(const GenerationEvent& event) override {
    executor_->OnIoThread([call = call_, index = index_, event] {
      if (auto locked = call.lock()) locked->OnEvent(index, event);
    });
  }

 private:
  const std::weak_ptr<GenerationCall> call_;
  const std::shared_ptr<HttpExecutor> executor_;
  const int index_;
};

GenerationCall::GenerationCall(CallContext* context, const HttpDialect* dialect, CallParser parser,
                               HttpRequest request, std::shared_ptr<HttpReply> reply)
    : context_(context),
      dialect_(dialect),
      parser_(std::move(parser)),
      request_(std::move(request)),
      reply_(std::move(reply)) {}

void GenerationCall::Begin() {
  context_->executor->OnWorkThread([self = shared_from_this()] { self->ParseAndStart(); });
}

void GenerationCall::ParseAndStart() {
  if (closed_) return;
  ParsedCall call;
  if (std::optional<ApiError> error = Parse(&call)) {
    context_->executor->OnIoThread(
        [self = shared_from_this(), error = *std::move(error)] { self->Fail(error); });
    return;
  }
  call.answer.has_value() ? AnswerAtOnce(*std::move(call.answer)) : StartAll(std::move(call));
}

void GenerationCall::AnswerAtOnce(HttpResponse answer) {
  context_->executor->OnIoThread([self = shared_from_this(), answer = std::move(answer)] {
    if (!self->closed_) self->Close()->Send(answer);
  });
}

std::optional<ApiError> GenerationCall::Parse(ParsedCall* call) {
  if (std::optional<ApiError> error = parser_(request_, call)) return error;
  for (const std::string& name : call->unknown_fields) {
    if (!context_->unknown_fields.ShouldLog(name)) continue;
    LogInfo(absl::StrCat("unknown request field `",
                         absl::Utf8SafeCHexEscape(name.substr(0, kMaxLoggedNameBytes)),
                         "` is accepted and ignored"));
  }
  return std::nullopt;
}

void GenerationCall::StartAll(ParsedCall call) {
  const std::shared_ptr<GenerationCall> self = shared_from_this();
  const ModelEntry& model = *call.model;
  std::vector<GenerationRequest> generations = std::move(call.generations);
  const int num_choices = static_cast<int>(generations.size());
  // Before Start, so that it is known on the I/O thread before any event comes there. A task must
  // be copyable, which the encoder is not.
  auto parsed = std::make_shared<ParsedCall>(std::move(call));
  context_->executor->OnIoThread(
      [self, parsed, num_choices] { self->OnParsed(std::move(*parsed), num_choices); });
  for (int i = 0; i < num_choices && !closed_; ++i) {
    GenerationRequest& generation = generations[i];
    generation.deadline = request_.received + context_->request_timeout;
    generation.tenant = request_.tenant;
    model.generation->Start(
        std::move(generation), std::make_shared<Sink>(weak_from_this(), context_->executor, i),
        [self, i, executor = context_->executor](absl::StatusOr<RequestId> id) {
          executor->OnIoThread([self, i, id = std::move(id)] { self->OnStarted(i, id); });
        });
  }
}

void GenerationCall::OnParsed(ParsedCall call, int num_choices) {
  model_ = call.model;
  stream_ = call.stream;
  choices_per_prompt_ = call.choices_per_prompt;
  encoder_ = std::move(call.encoder);
  choices_.resize(num_choices);
}

void GenerationCall::OnStarted(int index, const absl::StatusOr<RequestId>& id) {
  if (!id.ok()) {
    Fail(ErrorFromStatus(id.status(), context_->RetrySeconds(*model_)));
    return;
  }
  if (closed_) {
    model_->generation->Cancel(*id);
    return;
  }
  choices_[index].id = *id;
}

void GenerationCall::OnEvent(int index, const GenerationEvent& event) {
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
  const bool is_first = first_event_ == absl::InfiniteFuture();
  if (is_first) first_event_ = absl::Now();
  if (stream_) {
    OpenStream();
    if (is_first) {
      reply_->Write(encoder_->Begin(static_cast<int>(choices_.size()), event.usage));
    }
    reply_->Write(encoder_->Event(index, event));
  } else {
    choice.completed.answer.Add(event);
  }
  if (!event.finished) return;
  choice.finished = true;
  choice.completed.reason = event.reason;
  choice.completed.stop = event.stop;
  choice.usage = event.usage;
  for (const Choice& other : choices_) {
    if (!other.finished) return;
  }
  FinishAll();
}

void GenerationCall::OpenStream() {
  if (stream_open_) return;
  stream_open_ = true;
  HttpResponse head;
  head.headers = encoder_->StreamHeaders();
  reply_->StartStream(std::move(head));
}

void GenerationCall::FinishAll() {
  AnswerTotals totals;
  std::vector<CompletedChoice> answers;
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    // A prompt counts once, however many answers it got.
    if (i % static_cast<size_t>(choices_per_prompt_) == 0) {
      totals.usage.prompt_tokens += choice.usage.prompt_tokens;
      totals.usage.cached_tokens += choice.usage.cached_tokens;
    }
    totals.usage.completion_tokens += choice.usage.completion_tokens;
    totals.usage.reasoning_tokens += choice.usage.reasoning_tokens;
    answers.push_back(std::move(choice.completed));
  }
  totals.taken = absl::Now() - request_.received;
  totals.first_answer = first_event_ - request_.received;
  context_->retry[model_].AddFinished(absl::ToDoubleSeconds(totals.taken));
  const std::shared_ptr<HttpReply> reply = Close();
  reply->Annotate(
      absl::StrCat(totals.usage.prompt_tokens, "+", totals.usage.completion_tokens, " tokens",
                   context_->api.models->has_several() ? absl::StrCat(" of ", model_->name) : "",
                   request_.tenant.empty() ? "" : absl::StrCat(" for ", request_.tenant)));
  if (!stream_) return reply->Send(encoder_->Whole(answers, totals));
  reply->Write(encoder_->End(totals));
  reply->Finish();
}

void GenerationCall::Fail(const ApiError& error) {
  if (closed_) return;
  CancelAll();
  const std::shared_ptr<HttpReply> reply = Close();
  reply->Annotate(error.message);
  if (stream_open_) {
    reply->Write(encoder_->Error(error));
    reply->Finish();
    return;
  }
  HttpResponse response = dialect_->Error(error);
  // The official clients repeat what failed with 5xx; what failed after minutes of work, or took
  // all the time that it had, should not be.
  const bool tried = first_event_ != absl::InfiniteFuture() || error.status == 504;
  if (tried && error.retry_after_seconds == 0) {
    response.headers.emplace_back("x-should-retry", "false");
  }
  reply->Send(std::move(response));
}

void GenerationCall::CancelAll() {
  for (const Choice& choice : choices_) {
    if (choice.id.has_value() && !choice.finished) model_->generation->Cancel(*choice.id);
  }
}

std::shared_ptr<HttpReply> GenerationCall::Close() {
  closed_ = true;
  return std::move(reply_);
}

void GenerationCall::OnSilence() {
  if (closed_ || !stream_) return;
  const std::string bytes = encoder_->KeepAlive();
  if (bytes.empty()) return;
  OpenStream();
  reply_->Write(bytes);
}

void GenerationCall::OnGone() {
  if (closed_) return;
  CancelAll();
  Close();
}

void GenerationCall::OnShutdown() {
  Fail(ErrorFromStatus(absl::UnavailableError("the server is shutting down"), 0));
}

}  // namespace dovetail::coordinator
