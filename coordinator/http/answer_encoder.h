// AnswerEncoder: one dialect's form of the answers to one request. Every dialect is fed the same
// events by GenerationCall (generation_call.h) and only translates them.
//
// Either Whole(), or a stream: Begin(), Event() for each event of each choice in any interleaving,
// End(). Error() may come instead of the rest, KeepAlive() at any time after the headers. Each
// returns the bytes to send; "" sends nothing. Owned by its call, I/O thread only.
#ifndef DOVETAIL_COORDINATOR_HTTP_ANSWER_ENCODER_H_
#define DOVETAIL_COORDINATOR_HTTP_ANSWER_ENCODER_H_

#include <string>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/generation_request.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/http_message.h"

namespace dovetail::coordinator {

// A choice of an answer that is not streamed: what its events added up to.
struct CompletedChoice {
  AnswerDelta answer;
  FinishReason reason = FinishReason::kStop;
  std::string stop;  // the stop string that ended it
};

struct AnswerTotals {
  RequestUsage usage;           // of all choices together; a prompt counts once
  absl::Duration taken;         // from the request's headers
  absl::Duration first_answer;  // the same, to the first event
};

class AnswerEncoder {
 public:
  virtual ~AnswerEncoder() = default;

  virtual HttpHeaders StreamHeaders() const = 0;
  // Before the first event of any choice. `prompt` has the prompt's tokens.
  virtual std::string Begin(int num_choices, const RequestUsage& prompt) = 0;
  // An event that is `finished` is the last one of its choice.
  virtual std::string Event(int choice, const GenerationEvent& event) = 0;
  virtual std::string End(const AnswerTotals& totals) = 0;
  virtual std::string Error(const ApiError& error) = 0;
  virtual std::string KeepAlive() = 0;

  virtual HttpResponse Whole(absl::Span<const CompletedChoice> choices,
                             const AnswerTotals& totals) = 0;
};

// The headers of server-sent events.
HttpHeaders EventStreamHeaders();

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_ANSWER_ENCODER_H_
