// OpenAiEncoder: what one request's answers look like on the wire, whole or as server-sent events.
//
// Every chunk of a stream has the same id, created and model; a role comes once, in the first chunk
// of a choice; events have no `id:` and no `event:` line, because the official Python client
// stumbles over them.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_ENCODER_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_ENCODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/generation_request.h"
#include "coordinator/http/answer_encoder.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/openai_fields.h"
#include "coordinator/model_directory.h"
#include "nlohmann/json_fwd.hpp"

namespace dovetail::coordinator {

struct AnswerIdentity {
  OpenAiEndpoint endpoint = OpenAiEndpoint::kChat;
  std::string id;       // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::string model;
  std::string system_fingerprint;
  bool include_usage = false;  // of a stream
  bool logprobs = false;
};

inline constexpr char kSseKeepAlive[] = ": keep-alive\n\n";
inline constexpr char kSseDone[] = "data: [DONE]\n\n";

class OpenAiEncoder : public AnswerEncoder {
 public:
  explicit OpenAiEncoder(AnswerIdentity identity);

  HttpHeaders StreamHeaders() const override { return EventStreamHeaders(); }
  std::string Begin(int num_choices, const RequestUsage& prompt) override;
  std::string Event(int choice, const GenerationEvent& event) override;
  std::string End(const AnswerTotals& totals) override;
  std::string Error(const ApiError& error) override { return ErrorEvent(error); }
  std::string KeepAlive() override { return kSseKeepAlive; }
  HttpResponse Whole(absl::Span<const CompletedChoice> choices,
                     const AnswerTotals& totals) override;

  // The body of a response that is not streamed. Choice i has index i.
  std::string Completion(absl::Span<const CompletedChoice> choices,
                         const RequestUsage& usage) const;

  // Events, each "data: {...}\n\n". RoleEvent is "" for completions, which have no roles.
  std::string RoleEvent(int index) const;
  // `text_offset`: characters of the choice so far, which a completion's logprobs show.
  std::string DeltaEvent(int index, const AnswerDelta& delta, int* text_offset) const;
  std::string FinishEvent(int index, FinishReason reason) const;
  std::string UsageEvent(const RequestUsage& usage) const;
  static std::string ErrorEvent(const ApiError& error);

 private:
  nlohmann::ordered_json Head(absl::string_view object) const;
  std::string ChunkEvent(int index, nlohmann::ordered_json delta, nlohmann::ordered_json logprobs,
                         const char* finish_reason) const;
  nlohmann::ordered_json Logprobs(const AnswerDelta& answer, int* text_offset) const;

  AnswerIdentity identity_;
  std::vector<int> text_offsets_;  // characters of each choice that were sent
};

// {"object":"list","data":[...]} and one entry of it. context_length 0 is left out.
std::string ModelListBody(const ModelDirectory& models);
std::string ModelBody(const ModelEntry& model);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_ENCODER_H_
