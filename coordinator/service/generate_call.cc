#include "coordinator/service/generate_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/service/generate_request.h"
#include "coordinator/service/retry_status.h"

namespace dovetail::coordinator {
namespace {

void FillUsage(const RequestUsage& usage, v1::Usage* proto) {
  proto->set_prompt_tokens(static_cast<uint32_t>(usage.prompt_tokens));
  proto->set_completion_tokens(static_cast<uint32_t>(usage.completion_tokens));
  proto->set_cached_tokens(static_cast<uint32_t>(usage.cached_tokens));
  proto->set_reasoning_tokens(static_cast<uint32_t>(usage.reasoning_tokens));
}

void AddLogprobs(const TokenDetail& detail, v1::TokenLogprobs* proto) {
  proto->set_token(detail.bytes);
  if (detail.logprob.has_value()) proto->set_logprob(*detail.logprob);
  for (const auto& [token, logprob] : detail.top) {
    v1::Logprob* top = proto->add_top();
    top->set_token(token);
    top->set_logprob(logprob);
  }
}

v1::FinishReason ReasonOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kToolCalls:
      return v1::FINISH_REASON_TOOL_CALLS;
    default:
      return v1::FINISH_REASON_UNSPECIFIED;
  }
}

absl::Status FinalStatus(const GenerationEvent& event) {
  if (ReasonOf(event.reason) != v1::FINISH_REASON_UNSPECIFIED) return absl::OkStatus();
  if (!event.status.ok()) return event.status;
  return event.reason == FinishReason::kCancelled
             ? absl::CancelledError("the request was cancelled")
             : absl::InternalError("the generation failed");
}

}  // namespace

class GenerateCall::Sink : public EventSink {
 public:
  Sink(std::shared_ptr<GenerateCall> call, size_t choice)
      : call_(std::move(call)), choice_(choice) {}
  void OnEvent(const GenerationEvent& event) override { call_->OnEvent(choice_, event); }

 private:
  const std::shared_ptr<GenerateCall> call_;
  const size_t choice_;
};

void GenerateCall::Begin(const v1::GenerateRequest& proto, absl::Time deadline,
                         absl::StatusOr<std::string> tenant) {
  self_ = shared_from_this();
  const absl::Status started = StartGenerations(proto, deadline, std::move(tenant));
  if (started.ok()) return;
  absl::MutexLock lock(&mutex_);
  CutOff(started, /*drops=*/true);
  Flush();
}

absl::Status GenerateCall::StartGenerations(const v1::GenerateRequest& proto, absl::Time deadline,
                                            absl::StatusOr<std::string> tenant) {
  if (!tenant.ok()) return tenant.status();
  DT_ASSIGN_OR_RETURN(model_, options_.models->Find(proto.model()));
  DT_ASSIGN_OR_RETURN(GenerationRequest request, FromProto(proto));
  request.tenant = *std::move(tenant);
  request.deadline = std::min(deadline, absl::Now() + options_.request_timeout);
  const size_t num_choices = std::max<size_t>(1, proto.n());
  {
    absl::MutexLock lock(&mutex_);
    choices_.resize(num_choices);
  }
  const std::shared_ptr<GenerateCall> self = shared_from_this();
  for (size_t i = 0; i < num_choices; ++i) {
    request.choice = static_cast<uint32_t>(i);
    model_->generation->Start(
        request, std::make_shared<Sink>(self, i),
        [self, i](const absl::StatusOr<RequestId>& id) { self->OnStarted(i, id); });
  }
  return absl::OkStatus();
}

void GenerateCall::OnStarted(size_t choice, const absl::StatusOr<RequestId>& id) {
  Cancels cancels;
  {
    absl::MutexLock lock(&mutex_);
    if (id.ok()) {
      choices_[choice].id = *id;
      if (cut_off_ && !choices_[choice].ended) cancels.push_back(*id);
    } else {
      choices_[choice].ended = true;
      cancels = CutOff(id.status(), /*drops=*/false);
    }
    Flush();
  }
  Cancel(cancels);
}

void GenerateCall::OnEvent(size_t index, const GenerationEvent& event) {
  Cancels cancels;
  {
    absl::MutexLock lock(&mutex_);
    Choice& choice = choices_[index];
    if (choice.ended) return;
    choice.ended = event.finished;
    const absl::Status status = event.finished ? FinalStatus(event) : absl::OkStatus();
    if (!status.ok()) {
      cancels = CutOff(status, /*drops=*/false);
    } else if (!cut_off_) {
      Merge(event, &choice);
      if (!event.finished && UnreadBytes() > options_.max_unread_bytes) {
        cancels =
            CutOff(absl::ResourceExhaustedError(absl::StrCat(
                       "the client left more than ", options_.max_unread_bytes, " bytes unread")),
                   /*drops=*/true);
      }
    }
    Flush();
  }
  Cancel(cancels);
}

void GenerateCall::OnWriteDone(bool ok) {
  Cancels cancels;
  {
    absl::MutexLock lock(&mutex_);
    is_writing_ = false;
    if (!ok) cancels = CutOff(absl::CancelledError("the client is gone"), /*drops=*/true);
    Flush();
  }
  Cancel(cancels);
}

void GenerateCall::OnCancel() {
  Cancels cancels;
  {
    absl::MutexLock lock(&mutex_);
    cancels = CutOff(absl::CancelledError("the client cancelled the call"), /*drops=*/true);
    Flush();
  }
  Cancel(cancels);
}

void GenerateCall::OnDone() { self_.reset(); }

void GenerateCall::Merge(const GenerationEvent& event, Choice* choice) {
  v1::GenerateResponse& pending = choice->pending;
  pending.set_choice(static_cast<uint32_t>(choice - choices_.data()));
  pending.mutable_text()->append(event.text);
  pending.mutable_reasoning()->append(event.reasoning);
  for (const ToolCallDelta& call : event.tool_calls) {
    v1::ToolCallDelta* out = pending.add_tool_calls();
    out->set_index(static_cast<uint32_t>(call.index));
    out->set_id(call.id);
    out->set_name(call.name);
    out->set_arguments(call.arguments);
  }
  for (int32_t token : event.tokens) pending.add_token_ids(token);
  for (const TokenDetail& detail : event.details) AddLogprobs(detail, pending.add_logprobs());
  if (choice->first) pending.set_seed(event.seed);
  if (choice->first || event.finished) FillUsage(event.usage, pending.mutable_usage());
  choice->first = false;
  choice->has_pending = true;
  if (!event.finished) return;
  pending.set_finish_reason(ReasonOf(event.reason));
  pending.set_stop(event.stop);
}

size_t GenerateCall::UnreadBytes() const {
  size_t bytes = 0;
  for (const Choice& choice : choices_) {
    if (choice.has_pending) bytes += choice.pending.ByteSizeLong();
  }
  return bytes;
}

bool GenerateCall::AllEnded() const {
  return std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.ended; });
}

void GenerateCall::Flush() {
  if (is_writing_ || finished_) return;
  for (Choice& choice : choices_) {
    if (!choice.has_pending) continue;
    writing_.Swap(&choice.pending);
    choice.pending.Clear();
    choice.has_pending = false;
    is_writing_ = true;
    StartWrite(&writing_);
    return;
  }
  if (cut_off_ || AllEnded()) {
    finished_ = true;
    if (status_.ok()) options_.times->Add(*model_, absl::Now() - begun_);
    const bool is_full = absl::IsResourceExhausted(status_) && model_ != nullptr;
    Finish(ToGrpcStatusWithRetry(
        status_, is_full ? options_.times->RetryAfter(*model_) : absl::ZeroDuration()));
  }
}

GenerateCall::Cancels GenerateCall::CutOff(const absl::Status& status, bool drops) {
  Cancels cancels;
  if (drops) {
    for (Choice& choice : choices_) choice.has_pending = false;
  }
  if (cut_off_) return cancels;
  cut_off_ = true;
  status_ = status;
  for (Choice& choice : choices_) {
    if (choice.id.has_value() && !choice.ended) cancels.push_back(*choice.id);
  }
  return cancels;
}

void GenerateCall::Cancel(const Cancels& ids) {
  for (RequestId id : ids) model_->generation->Cancel(id);
}

}  // namespace dovetail::coordinator
