// AnthropicEncoder: the answer to a request of Anthropic's Messages API: one message made of
// blocks, whole or as named server-sent events.
//
// A stream is message_start, for each block content_block_start, content_block_delta...,
// content_block_stop, then message_delta with the reason and the usage, and message_stop. There is
// one choice.
#ifndef DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_ENCODER_H_
#define DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_ENCODER_H_

#include <string>

#include "coordinator/http/answer_encoder.h"
#include "nlohmann/json_fwd.hpp"

namespace dovetail::coordinator {

struct MessageIdentity {
  std::string id;          // "msg_..."
  std::string request_id;  // sent as Anthropic's header `request-id`
  std::string model;
};

class AnthropicEncoder : public AnswerEncoder {
 public:
  explicit AnthropicEncoder(MessageIdentity identity);

  HttpHeaders StreamHeaders() const override;
  std::string Begin(int num_choices, const RequestUsage& prompt) override;
  std::string Event(int choice, const GenerationEvent& event) override;
  std::string End(const AnswerTotals& totals) override;
  std::string Error(const ApiError& error) override;
  std::string KeepAlive() override;
  HttpResponse Whole(absl::Span<const CompletedChoice> choices,
                     const AnswerTotals& totals) override;

 private:
  // Why a message ended; nulls while it has not.
  struct Ending {
    nlohmann::ordered_json reason, sequence;
  };
  static Ending EndingOf(FinishReason reason, const std::string& stop);
  nlohmann::ordered_json Message(nlohmann::ordered_json content, const Ending& ending,
                                 const RequestUsage& usage) const;
  // Opens a block of `type` unless one is open.
  std::string OpenBlock(const std::string& type, nlohmann::ordered_json start);
  std::string CloseBlock();
  std::string Delta(nlohmann::ordered_json delta) const;

  const MessageIdentity identity_;
  int block_ = -1;         // index of the block that is open or was open last
  std::string open_type_;  // "": none is open
  Ending ending_;
};

// {"type":"error","error":{"type":...,"message":...}}, with the status that goes with it.
std::string AnthropicErrorBody(const ApiError& error);
HttpResponse AnthropicError(const ApiError& error);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_HTTP_ANTHROPIC_ENCODER_H_
