// GenerationCall: one request for generated text, from its body to its last byte, in any dialect.
//
// The body is parsed and the prompt tokenised on the work thread, which then submits; events come
// back over the I/O thread, where everything else happens. No header is sent before the first event
// or the first keep-alive, so that an error that comes early has a real HTTP status; later it is an
// event of the stream. Several generations are answered as choices of one response. What is
// particular to a dialect is in its parser and its AnswerEncoder.
#ifndef DOVETAIL_COORDINATOR_HTTP_GENERATION_CALL_H_
#define DOVETAIL_COORDINATOR_HTTP_GENERATION_CALL_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/generation.h"
#include "coordinator/http/answer_encoder.h"
#include "coordinator/http/http_message.h"
#include "coordinator/http/http_router.h"
#include "coordinator/http/http_server.h"
#include "coordinator/http/openai_fields.h"
#include "coordinator/http/retry_estimator.h"

namespace dovetail::coordinator {

// What all calls of a server share; outlives them.
struct CallContext {
  HttpApi api;
  absl::Duration request_timeout;
  std::shared_ptr<HttpExecutor> executor;
  UnknownFieldLog unknown_fields;
  std::map<const ModelEntry*, RetryEstimator> retry;  // I/O thread

  // When a client that found the queue of `model` full should come again. I/O thread.
  int RetrySeconds(const ModelEntry& model) { return retry[&model].Seconds(model.stats()); }
};

// A request as its dialect's parser understood it.
struct ParsedCall {
  const ModelEntry* model = nullptr;
  bool stream = false;
  int choices_per_prompt = 1;
  std::vector<GenerationRequest> generations;  // choice i; deadline and tenant are set by the call
  std::vector<std::string> unknown_fields;
  std::unique_ptr<AnswerEncoder> encoder;
  std::optional<HttpResponse> answer;  // where nothing has to be generated; the rest is empty then
};

// Work thread. Fills `call`, or returns the first mistake.
using CallParser = std::function<std::optional<ApiError>(const HttpRequest&, ParsedCall* call)>;

// The model that a request names, if it can serve text.
std::optional<ApiError> FindModel(const CallContext& context, absl::string_view name,
                                  const ModelEntry** model);

class GenerationCall : public HttpCall, public std::enable_shared_from_this<GenerationCall> {
 public:
  // `context` and `dialect` are borrowed.
  GenerationCall(CallContext* context, const HttpDialect* dialect, CallParser parser,
                 HttpRequest request, std::shared_ptr<HttpReply> reply);

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
    RequestUsage usage;
  };

  // Work thread.
  void ParseAndStart();
  std::optional<ApiError> Parse(ParsedCall* call);
  void StartAll(ParsedCall call);
  void AnswerAtOnce(HttpResponse answer);

  // I/O thread.
  void OnParsed(ParsedCall call, int num_choices);
  void OnStarted(int index, const absl::StatusOr<RequestId>& id);
  void OnEvent(int index, const GenerationEvent& event);
  void OpenStream();
  void FinishAll();
  void Fail(const ApiError& error);
  void CancelAll();
  // The reply, for the last time: nothing is written after it.
  std::shared_ptr<HttpReply> Close();

  CallContext* const context_;
  const HttpDialect* const dialect_;
  const CallParser parser_;
  const HttpRequest request_;
  std::atomic<bool> closed_{false};  // set on the I/O thread, read on the work thread

  std::shared_ptr<HttpReply> reply_;
  const ModelEntry* model_ = nullptr;  // known with the choices
  std::unique_ptr<AnswerEncoder> encoder_;
  bool stream_ = false;
  bool stream_open_ = false;
  absl::Time first_event_ = absl::InfiniteFuture();
  int choices_per_prompt_ = 1;
  std::vector<Choice> choices_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_GENERATION_CALL_H_
