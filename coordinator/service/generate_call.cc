#include "coordinator/service/generate_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "transport/status_convert.h"

namespace dovetail::coordinator {
namespace {

absl::StatusOr<GenerationRequest> FromProto(const v1::GenerateRequest& proto) {
  GenerationRequest request;
  switch (proto.input_case()) {
    case v1::GenerateRequest::kPrompt:
      request.input = proto.prompt();
      break;
    case v1::GenerateRequest::kTokenIds:
      request.input =
          std::vector<int32_t>(proto.token_ids().ids().begin(), proto.token_ids().ids().end());
      break;
    case v1::GenerateRequest::kChat: {
      std::vector<ChatMessage> messages;
      for (const v1::ChatMessage& message : proto.chat().messages()) {
        messages.push_back({message.role(), message.content()});
      }
      request.input = std::move(messages);
      break;
    }
    default:
      return absl::InvalidArgumentError("one of `prompt`, `token_ids` and `chat` is needed");
  }
  const v1::SamplingOptions& sampling = proto.sampling();
  if (sampling.has_temperature()) request.temperature = sampling.temperature();
  if (sampling.has_top_p()) request.top_p = sampling.top_p();
  if (sampling.has_min_p()) request.min_p = sampling.min_p();
  if (sampling.has_top_k()) request.top_k = sampling.top_k();
  if (sampling.has_seed()) request.seed = sampling.seed();
  if (proto.has_max_tokens()) request.max_tokens = proto.max_tokens();
  request.stop.assign(proto.stop().begin(), proto.stop().end());
  request.ignore_eos = proto.ignore_eos();
  return request;
}

void FillUsage(const RequestUsage& usage, v1::Usage* proto) {
  proto->set_prompt_tokens(static_cast<uint32_t>(usage.prompt_tokens));
  proto->set_completion_tokens(static_cast<uint32_t>(usage.completion_tokens));
  proto->set_cached_tokens(static_cast<uint32_t>(usage.cached_tokens));
}

absl::Status FinalStatus(const GenerationEvent& event) {
  switch (event.reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      return absl::OkStatus();
    case FinishReason::kCancelled:
      return event.status.ok() ? absl::CancelledError("the request was cancelled") : event.status;
    case FinishReason::kError:
      break;
  }
  return event.status.ok() ? absl::InternalError("the generation failed") : event.status;
}

size_t UnreadBytes(const v1::GenerateResponse& response) {
  return response.text().size() + sizeof(int32_t) * static_cast<size_t>(response.token_ids_size());
}

}  // namespace

void GenerateCall::Begin(const v1::GenerateRequest& proto, absl::Time deadline,
                         absl::StatusOr<std::string> tenant) {
  self_ = shared_from_this();
  const absl::StatusOr<RequestId> id = StartGeneration(proto, deadline, std::move(tenant));
  std::optional<RequestId> to_cancel;
  {
    absl::MutexLock lock(&mutex_);
    if (id.ok()) {
      id_ = *id;
      if (cut_off_) to_cancel = CutOff();
    } else {
      ended_ = true;
      status_ = id.status();
      Flush();
    }
  }
  Cancel(to_cancel);
}

absl::StatusOr<RequestId> GenerateCall::StartGeneration(const v1::GenerateRequest& proto,
                                                        absl::Time deadline,
                                                        absl::StatusOr<std::string> tenant) {
  if (!tenant.ok()) return tenant.status();
  DT_RETURN_IF_ERROR(options_.generation->CheckModel(proto.model()));
  DT_ASSIGN_OR_RETURN(GenerationRequest request, FromProto(proto));
  request.tenant = *std::move(tenant);
  request.deadline = std::min(deadline, absl::Now() + options_.request_timeout);
  return options_.generation->Start(request, shared_from_this());
}

void GenerateCall::OnEvent(const GenerationEvent& event) {
  std::optional<RequestId> to_cancel;
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    if (!cut_off_) Merge(event);
    if (event.finished) {
      ended_ = true;
      if (status_.ok()) status_ = FinalStatus(event);
    } else if (!cut_off_ && UnreadBytes(pending_) > options_.max_unread_bytes) {
      status_ = absl::ResourceExhaustedError(
          absl::StrCat("the client left more than ", options_.max_unread_bytes, " bytes unread"));
      to_cancel = CutOff();
    }
    Flush();
  }
  Cancel(to_cancel);
}

void GenerateCall::OnWriteDone(bool ok) {
  std::optional<RequestId> to_cancel;
  {
    absl::MutexLock lock(&mutex_);
    is_writing_ = false;
    if (!ok) to_cancel = CutOff();
    Flush();
  }
  Cancel(to_cancel);
}

void GenerateCall::OnCancel() {
  std::optional<RequestId> to_cancel;
  {
    absl::MutexLock lock(&mutex_);
    to_cancel = CutOff();
    Flush();
  }
  Cancel(to_cancel);
}

void GenerateCall::OnDone() { self_.reset(); }

void GenerateCall::Merge(const GenerationEvent& event) {
  pending_.mutable_text()->append(event.text);
  for (int32_t token : event.tokens) pending_.add_token_ids(token);
  if (first_) pending_.set_seed(event.seed);
  if (first_ || event.finished) FillUsage(event.usage, pending_.mutable_usage());
  first_ = false;
  has_pending_ = true;
  if (!event.finished) return;
  if (event.reason == FinishReason::kStop) pending_.set_finish_reason(v1::FINISH_REASON_STOP);
  if (event.reason == FinishReason::kLength) pending_.set_finish_reason(v1::FINISH_REASON_LENGTH);
}

void GenerateCall::Flush() {
  if (is_writing_ || finished_) return;
  if (has_pending_) {
    writing_.Swap(&pending_);
    pending_.Clear();
    has_pending_ = false;
    is_writing_ = true;
    StartWrite(&writing_);
  } else if (ended_) {
    finished_ = true;
    Finish(transport::ToGrpcStatus(status_));
  }
}

std::optional<RequestId> GenerateCall::CutOff() {
  cut_off_ = true;
  has_pending_ = false;
  pending_.Clear();
  return ended_ ? std::nullopt : id_;  // Begin() looks at cut_off_ when the id is known
}

void GenerateCall::Cancel(std::optional<RequestId> id) {
  if (id.has_value()) options_.generation->Cancel(*id);
}

}  // namespace dovetail::coordinator
