// RequestMetrics: what clients experience, counted and timed where every API's events pass:
// requests by outcome, tokens, time to first token, between tokens, in each phase and in all. One
// for each model.
//
// Thread-safe and lock-free. Outlives the sinks that it made.
#ifndef DOVETAIL_COORDINATOR_REQUEST_METRICS_H_
#define DOVETAIL_COORDINATOR_REQUEST_METRICS_H_

#include <array>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/metrics.h"
#include "coordinator/generation.h"

namespace dovetail::coordinator {

struct ModelMetrics;

class RequestMetrics {
 public:
  RequestMetrics();

  // A sink that passes everything on to `sink` and takes the time. `start`: when the request came.
  std::shared_ptr<EventSink> Watch(std::shared_ptr<EventSink> sink, absl::Time start);
  // A request that did not become a generation.
  void AddRejected(const absl::Status& reason);

 private:
  friend void WriteRequestMetrics(absl::Span<const ModelMetrics> models, MetricsText* text);
  class Watcher;
  enum Outcome { kStop, kLength, kCancelled, kDeadline, kError, kNumOutcomes };
  enum Rejection { kInvalid, kQueueFull, kUnavailable, kOther, kNumRejections };
  static Outcome OutcomeOf(const GenerationEvent& event);

  std::array<Counter, kNumOutcomes> finished_;
  std::array<Counter, kNumRejections> rejected_;
  Counter prompt_tokens_;
  Counter generated_tokens_;
  Histogram first_token_;
  Histogram inter_token_;
  Histogram per_output_token_;
  Histogram whole_;
  Histogram queue_;
  Histogram prefill_;
  Histogram decode_;
};

struct ModelMetrics {
  std::string model;
  const RequestMetrics* metrics;
};

// Every family once, with the samples of each model.
void WriteRequestMetrics(absl::Span<const ModelMetrics> models, MetricsText* text);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_REQUEST_METRICS_H_
