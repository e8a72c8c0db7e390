#include "coordinator/request_metrics.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace dovetail::coordinator {
namespace {

constexpr double kFirstTokenBounds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                        2.5,   5,    10,    20,   40,  80,   160, 320};
constexpr double kTokenBounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                   0.15,  0.2,    0.3,   0.5,  0.75,  1,    2.5,   5};
constexpr double kWholeBounds[] = {0.05, 0.1, 0.25, 0.5, 1,   2.5, 5,   10,
                                   20,   40,  80,   160, 320, 640, 1280};

constexpr double kPhaseBounds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,  2.5,
                                   5,     10,   20,    40,   80,  160,  320, 640};

constexpr absl::string_view kOutcomes[] = {"stop", "length", "cancelled", "deadline", "error"};
constexpr absl::string_view kRejections[] = {"invalid", "queue_full", "unavailable", "other"};

}  // namespace

// Events come on the engine's thread, one after the other.
class RequestMetrics::Watcher : public EventSink {
 public:
  Watcher(RequestMetrics* metrics, std::shared_ptr<EventSink> sink, absl::Time start)
      : metrics_(*metrics), sink_(std::move(sink)), start_(start) {}

  void OnEvent(const GenerationEvent& event) override {
    // Not event.tokens: those of an echoed prompt were not generated.
    const uint64_t generated = static_cast<uint64_t>(event.usage.completion_tokens);
    if (!event.finished && generated > num_tokens_) AddTokens(generated - num_tokens_);
    if (event.finished) Finish(event);
    sink_->OnEvent(event);
  }

 private:
  void AddTokens(uint64_t count) {
    const absl::Time now = absl::Now();
    if (num_tokens_ == 0) {
      first_ = last_ = now;
      metrics_.first_token_.Observe(absl::ToDoubleSeconds(now - start_));
      --count;  // the others came with it
      ++num_tokens_;
    }
    if (count > 0) {
      const double gap = absl::ToDoubleSeconds(now - last_) / static_cast<double>(count);
      metrics_.inter_token_.Observe(gap, count);
      num_tokens_ += count;
    }
    last_ = now;
  }

  void Finish(const GenerationEvent& event) {
    metrics_.finished_[OutcomeOf(event)].Add();
    metrics_.prompt_tokens_.Add(static_cast<uint64_t>(event.usage.prompt_tokens));
    metrics_.generated_tokens_.Add(num_tokens_);
    const absl::Time now = absl::Now();
    metrics_.whole_.Observe(absl::ToDoubleSeconds(now - start_));
    // A request that gave up waiting waited too.
    const absl::Time admitted = std::max(start_, std::min(event.usage.admitted, now));
    metrics_.queue_.Observe(absl::ToDoubleSeconds(admitted - start_));
    if (num_tokens_ > 0) {
      metrics_.prefill_.Observe(absl::ToDoubleSeconds(std::max(admitted, first_) - admitted));
      metrics_.decode_.Observe(absl::ToDoubleSeconds(last_ - first_));
    }
    if (num_tokens_ < 2) return;
    metrics_.per_output_token_.Observe(absl::ToDoubleSeconds(last_ - first_) /
                                       static_cast<double>(num_tokens_ - 1));
  }

  RequestMetrics& metrics_;
  const std::shared_ptr<EventSink> sink_;
  const absl::Time start_;
  absl::Time first_;
  absl::Time last_;
  uint64_t num_tokens_ = 0;
};

RequestMetrics::RequestMetrics()
    : first_token_(kFirstTokenBounds),
      inter_token_(kTokenBounds),
      per_output_token_(kTokenBounds),
      whole_(kWholeBounds),
      queue_(kPhaseBounds),
      prefill_(kPhaseBounds),
      decode_(kWholeBounds) {}

std::shared_ptr<EventSink> RequestMetrics::Watch(std::shared_ptr<EventSink> sink,
                                                 absl::Time start) {
  return std::make_shared<Watcher>(this, std::move(sink), start);
}

void RequestMetrics::AddRejected(const absl::Status& reason) {
  switch (reason.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kNotFound:
      return rejected_[kInvalid].Add();
    case absl::StatusCode::kResourceExhausted:
      return rejected_[kQueueFull].Add();
    case absl::StatusCode::kUnavailable:
      return rejected_[kUnavailable].Add();
    default:
      return rejected_[kOther].Add();
  }
}

RequestMetrics::Outcome RequestMetrics::OutcomeOf(const GenerationEvent& event) {
  switch (event.reason) {
    case FinishReason::kStop:
      return kStop;
    case FinishReason::kLength:
      return kLength;
    case FinishReason::kCancelled:
      return kCancelled;
    default:
      return absl::IsDeadlineExceeded(event.status) ? kDeadline : kError;
  }
}

void WriteRequestMetrics(absl::Span<const ModelMetrics> models, MetricsText* text) {
  text->Family("dovetail_requests_total", "counter", "Generations that ended, by outcome.");
  for (const ModelMetrics& model : models) {
    for (int i = 0; i < RequestMetrics::kNumOutcomes; ++i) {
      text->Sample({{"model", model.model}, {"outcome", kOutcomes[i]}},
                   model.metrics->finished_[i].value());
    }
  }
  text->Family("dovetail_rejected_total", "counter", "Requests refused before they began.");
  for (const ModelMetrics& model : models) {
    for (int i = 0; i < RequestMetrics::kNumRejections; ++i) {
      text->Sample({{"model", model.model}, {"reason", kRejections[i]}},
                   model.metrics->rejected_[i].value());
    }
  }
  const auto counter = [&](absl::string_view name, absl::string_view help,
                           Counter RequestMetrics::*value) {
    text->Family(name, "counter", help);
    for (const ModelMetrics& model : models) {
      text->Sample({{"model", model.model}}, (model.metrics->*value).value());
    }
  };
  const auto histogram = [&](absl::string_view name, absl::string_view help,
                             Histogram RequestMetrics::*value) {
    text->Family(name, "histogram", help);
    for (const ModelMetrics& model : models) {
      text->Sample({{"model", model.model}}, model.metrics->*value);
    }
  };
  counter("dovetail_prompt_tokens_total", "Prompt tokens of requests that ended.",
          &RequestMetrics::prompt_tokens_);
  counter("dovetail_generation_tokens_total", "Tokens generated for requests that ended.",
          &RequestMetrics::generated_tokens_);
  histogram("dovetail_time_to_first_token_seconds", "From a request's arrival to its first token.",
            &RequestMetrics::first_token_);
  histogram("dovetail_inter_token_latency_seconds",
            "Between two tokens of a request, each token counted.", &RequestMetrics::inter_token_);
  histogram("dovetail_time_per_output_token_seconds",
            "Mean time between the tokens of a request, each request counted.",
            &RequestMetrics::per_output_token_);
  histogram("dovetail_e2e_request_latency_seconds", "From a request's arrival to its end.",
            &RequestMetrics::whole_);
  histogram("dovetail_request_queue_seconds",
            "From a request's arrival to its first step, or to its end if it had none.",
            &RequestMetrics::queue_);
  histogram("dovetail_request_prefill_seconds", "From a request's first step to its first token.",
            &RequestMetrics::prefill_);
  histogram("dovetail_request_decode_seconds", "From a request's first token to its last.",
            &RequestMetrics::decode_);
}

}  // namespace dovetail::coordinator
