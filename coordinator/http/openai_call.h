// OpenAiCall: one completion request from its body to its last byte.
//
// The body is parsed and the prompt tokenised on the work thread, which then submits; events come
// back over the I/O thread, where everything else happens. No header is sent before the first event
// or the first keep-alive, so that an error that comes early has a real HTTP status; later it is an
// event of the stream. Several prompts are several generations, answered as choices of one
// response.
#ifndef DOVETAIL_COORDINATOR_HTTP_OPENAI_CALL_H_
#define DOVETAIL_COORDINATOR_HTTP_OPENAI_CALL_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/generation.h"
#include "coordinator/http/http_message.h"
#include "coordinator/http/http_server.h"
#include "coordinator/http/openai_encoder.h"
#include "coordinator/http/openai_request.h"
#include "coordinator/http/retry_estimator.h"

namespace dovetail::coordinator {

// What all calls of a server share; outlives them.
struct OpenAiContext {
  HttpApi api;
  absl::Duration request_timeout;
  std::shared_ptr<HttpExecutor> executor;
  UnknownFieldLog unknown_fields;
  RetryEstimator retry;
};

class OpenAiCall : public HttpCall, public std::enable_shared_from_this<OpenAiCall> {
 public:
  OpenAiCall(OpenAiContext* context, OpenAiEndpoint endpoint, HttpRequest request,
             std::shared_ptr<HttpReply> reply);

  void Begin();

  void OnSilence() override;
  void OnGone() override;
  void OnShutdown() override;

 private:
  class Sink;
  struct Choice {
    std::optional<RequestId> id;
    bool finished = false;
    CompletedChoice completed;
    int text_offset = 0;  // characters of it that were sent
    RequestUsage usage;
  };

  // Work thread.
  void ParseAndStart();
  std::optional<ApiError> Parse(OpenAiRequest* request);
  void StartAll(OpenAiRequest request);

  // I/O thread.
  void OnParsed(bool stream, AnswerIdentity identity, int num_choices, int per_prompt);
  void OnStarted(int index, const absl::StatusOr<RequestId>& id);
  void OnEvent(int index, const GenerationEvent& event);
  void OpenStream();
  void WriteRoles();
  void FinishAll();
  void Fail(const ApiError& error);
  void CancelAll();
  // The reply, for the last time: nothing is written after it.
  std::shared_ptr<HttpReply> Close();

  OpenAiContext* const context_;
  const OpenAiEndpoint endpoint_;
  const HttpRequest request_;
  std::atomic<bool> closed_{false};  // set on the I/O thread, read on the work thread

  std::shared_ptr<HttpReply> reply_;
  std::optional<OpenAiEncoder> encoder_;
  bool stream_ = false;
  bool include_usage_ = false;
  bool stream_open_ = false;
  bool roles_written_ = false;
  bool work_began_ = false;
  int choices_per_prompt_ = 1;
  std::vector<Choice> choices_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OPENAI_CALL_H_
