// GenerationSink: one request's tokens become its events: streaming detokenizer, stop strings,
// thoughts and calls of tools, echo, logprobs, usage.
//
// The engine's thread only, except Attach(). Holds its EventSink until the last event.
#ifndef DOVETAIL_COORDINATOR_GENERATION_SINK_H_
#define DOVETAIL_COORDINATOR_GENERATION_SINK_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/chat/answer_parser.h"
#include "coordinator/engine.h"
#include "coordinator/generation_request.h"
#include "coordinator/stop_matcher.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::coordinator {

class GenerationSink : public TokenSink {
 public:
  struct Options {
    std::vector<std::string> stops;
    std::vector<int32_t> prompt;          // empty unless it is echoed
    std::string prompt_text;              // the same
    std::optional<ParserOptions> parser;  // none: the answer is text
    std::vector<int32_t> marker_ids;      // special tokens whose names the parser must see
    bool logprobs = false;
    int num_prompt_tokens = 0;
    uint64_t seed = 0;
  };
  GenerationSink(const model::Tokenizer* tokenizer, Engine* engine,
                 std::shared_ptr<EventSink> events, Options options);

  // The request's id is known. Tokens may have come before that. Any thread.
  void Attach(RequestId id);

  void OnToken(int32_t token) override;
  void OnLogprobs(int position, absl::Span<const TokenLogprob> logprobs) override;
  void OnFinish(FinishReason reason, const absl::Status& status,
                const RequestUsage& usage) override;

 private:
  GenerationEvent NewEvent() const;
  void SendEcho();
  TokenDetail DetailOf(int32_t token, absl::Span<const TokenLogprob> logprobs) const;
  void Stop();
  std::string TextOf(int32_t token);
  // Puts text that is certain into the event.
  void Deliver(const std::string& text, bool final, GenerationEvent* event);

  const model::Tokenizer* const tokenizer_;
  Engine* const engine_;
  const Options options_;
  const bool has_text_;
  model::StreamingDetokenizer detokenizer_;
  StopMatcher stops_;
  std::optional<AnswerParser> parser_;
  std::shared_ptr<EventSink> events_;
  RequestUsage usage_;
  bool echo_sent_ = false;
  std::vector<TokenDetail> echo_;     // of the prompt
  std::vector<TokenDetail> details_;  // of the token that comes next
  std::atomic<RequestId> id_{0};
  std::atomic<bool> wants_cancel_{false};
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_GENERATION_SINK_H_
