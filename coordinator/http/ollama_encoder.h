// OllamaEncoder: answers as Ollama gives them: one JSON object, or a stream of lines of JSON whose
// last one has `done`, the reason and the times in nanoseconds. There is one choice.
#ifndef DOVETAIL_COORDINATOR_HTTP_OLLAMA_ENCODER_H_
#define DOVETAIL_COORDINATOR_HTTP_OLLAMA_ENCODER_H_

#include <string>

#include "coordinator/http/answer_encoder.h"
#include "coordinator/http/ollama_request.h"
#include "nlohmann/json_fwd.hpp"

namespace dovetail::coordinator {

class OllamaEncoder : public AnswerEncoder {
 public:
  OllamaEncoder(OllamaEndpoint endpoint, std::string model);

  HttpHeaders StreamHeaders() const override;
  std::string Begin(int, const RequestUsage&) override { return ""; }
  std::string Event(int choice, const GenerationEvent& event) override;
  std::string End(const AnswerTotals& totals) override;
  std::string Error(const ApiError& error) override;
  std::string KeepAlive() override {
    return "";
  }  // a line without an answer would be taken for one
  HttpResponse Whole(absl::Span<const CompletedChoice> choices,
                     const AnswerTotals& totals) override;

  // The answer to a request that only loads the model.
  HttpResponse Loaded(bool stream) const;

 private:
  // `delta` as message or response.
  nlohmann::ordered_json Answer(const AnswerDelta& delta) const;
  nlohmann::ordered_json Last(const AnswerDelta& delta, const AnswerTotals& totals) const;

  const OllamaEndpoint endpoint_;
  const std::string model_;
  FinishReason reason_ = FinishReason::kStop;
  AnswerDelta calls_;  // of tools, in a stream
};

// {"error":"..."} with the status that goes with it.
HttpResponse OllamaError(const ApiError& error);

// "2023-08-04T19:22:45.499127Z"
std::string OllamaTime(absl::Time time);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_OLLAMA_ENCODER_H_
