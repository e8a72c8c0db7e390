#include "coordinator/generation_sink.h"

#include <algorithm>
#include <utility>

namespace dovetail::coordinator {

GenerationSink::GenerationSink(const model::Tokenizer* tokenizer, Engine* engine,
                               std::shared_ptr<EventSink> events, Options options)
    : tokenizer_(tokenizer),
      engine_(engine),
      options_(std::move(options)),
      has_text_(tokenizer->has_vocab()),
      detokenizer_(tokenizer, /*special=*/false, /*at_start=*/false),
      stops_(options_.stops),
      events_(std::move(events)) {
  usage_.prompt_tokens = options_.num_prompt_tokens;
  if (options_.parser.has_value()) parser_.emplace(*options_.parser);
}

void GenerationSink::Attach(RequestId id) {
  id_ = id;
  if (wants_cancel_) engine_->Cancel(id);
}

GenerationEvent GenerationSink::NewEvent() const {
  GenerationEvent event;
  event.seed = options_.seed;
  event.usage = usage_;
  return event;
}

TokenDetail GenerationSink::DetailOf(int32_t token, absl::Span<const TokenLogprob> logprobs) const {
  TokenDetail detail;
  if (!has_text_) return detail;
  detail.bytes = tokenizer_->TokenBytes(token, /*special=*/true);
  detail.in_text = !tokenizer_->IsSpecial(token);
  if (logprobs.empty()) return detail;
  detail.logprob = logprobs[0].logprob;
  for (const TokenLogprob& other : logprobs.subspan(1)) {
    if (other.token < 0) continue;  // more were asked for than the vocabulary has
    detail.top.emplace_back(tokenizer_->TokenBytes(other.token, true), other.logprob);
  }
  return detail;
}

void GenerationSink::OnLogprobs(int position, absl::Span<const TokenLogprob> logprobs) {
  if (!options_.logprobs) return;
  if (position >= options_.num_prompt_tokens) {
    details_.push_back(DetailOf(logprobs[0].token, logprobs));
    return;
  }
  if (echo_.empty()) echo_.push_back(DetailOf(options_.prompt[0], {}));
  echo_.push_back(DetailOf(options_.prompt[static_cast<size_t>(position)], logprobs));
}

// The prompt, as the first event. Stop strings are looked for in the answer alone.
void GenerationSink::SendEcho() {
  if (echo_sent_ || options_.prompt.empty()) return;
  echo_sent_ = true;
  GenerationEvent event = NewEvent();
  event.text = options_.prompt_text;
  event.tokens = options_.prompt;
  if (options_.logprobs && echo_.empty()) echo_.push_back(DetailOf(options_.prompt[0], {}));
  event.details = std::move(echo_);
  events_->OnEvent(event);
}

void GenerationSink::OnToken(int32_t token) {
  if (stops_.stopped()) return;
  SendEcho();
  ++usage_.completion_tokens;
  GenerationEvent event = NewEvent();
  event.tokens.push_back(token);
  event.details = std::move(details_);
  details_.clear();
  if (parser_.has_value() && parser_->in_thought()) ++usage_.reasoning_tokens;
  if (has_text_) {
    const std::string text = stops_.Push(TextOf(token));
    Deliver(text, /*final=*/stops_.stopped(), &event);
  }
  if (stops_.stopped()) Stop();
  events_->OnEvent(event);
}

// A special token that a parser waits for is text to it.
std::string GenerationSink::TextOf(int32_t token) {
  const auto& markers = options_.marker_ids;
  if (std::find(markers.begin(), markers.end(), token) == markers.end()) {
    return detokenizer_.Push(token);
  }
  return detokenizer_.Finish() + tokenizer_->TokenBytes(token, /*special=*/true);
}

void GenerationSink::Deliver(const std::string& text, bool final, GenerationEvent* event) {
  if (!parser_.has_value()) {
    event->text += text;
    return;
  }
  static_cast<AnswerDelta*>(event)->Add(parser_->Push(text));
  if (final) static_cast<AnswerDelta*>(event)->Add(parser_->Finish());
}

// The last event comes when the engine has let go of the request, with its usage.
void GenerationSink::Stop() {
  wants_cancel_ = true;
  if (const RequestId id = id_; id != 0) engine_->Cancel(id);
}

void GenerationSink::OnFinish(FinishReason reason, const absl::Status& status,
                              const RequestUsage& usage) {
  if (reason == FinishReason::kLength || reason == FinishReason::kStop) SendEcho();
  GenerationEvent event;
  if (stops_.stopped()) {
    reason = FinishReason::kStop;
    usage_.cached_tokens = usage.cached_tokens;
    usage_.admitted = usage.admitted;
  } else {
    const int reasoning_tokens = usage_.reasoning_tokens;
    usage_ = usage;
    usage_.reasoning_tokens = reasoning_tokens;
    event.status = status;
    if (has_text_) {
      std::string text = stops_.Push(detokenizer_.Finish());
      if (stops_.stopped()) {
        reason = FinishReason::kStop;
      } else {
        text += stops_.Finish();
      }
      Deliver(text, /*final=*/true, &event);
    }
  }
  const bool calls = parser_.has_value() && parser_->num_calls() > 0;
  if (reason == FinishReason::kStop && calls) reason = FinishReason::kToolCalls;
  event.finished = true;
  event.reason = reason;
  event.stop = stops_.stop();
  event.seed = options_.seed;
  event.usage = usage_;
  events_->OnEvent(event);
  events_.reset();
}

}  // namespace dovetail::coordinator
