// Metrics: counters, gauges and histograms, and the text in which Prometheus reads them.
//
// Updating is lock-free and safe from any thread; reading gives values that are each right but not
// all of the same instant. MetricsText writes the exposition format 0.0.4: families one after the
// other, each with its help and type; labels are escaped, and their values must come from small
// sets, never from requests.
#ifndef DOVETAIL_BASE_METRICS_H_
#define DOVETAIL_BASE_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dovetail {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// A number that goes up and down, such as the streams that are open.
class Gauge {
 public:
  void Add(int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  void Set(int64_t n) { value_.store(n, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

class Histogram {
 public:
  static constexpr size_t kMaxBounds = 24;

  // `bounds`: upper ends of the buckets, increasing, borrowed for ever (a static array); what is
  // above the last one has a bucket of its own.
  explicit Histogram(absl::Span<const double> bounds);

  // `count` observations of the same value. NaN is dropped.
  void Observe(double value, uint64_t count = 1);

  absl::Span<const double> bounds() const { return bounds_; }
  uint64_t bucket(size_t i) const { return buckets_[i].load(std::memory_order_relaxed); }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const absl::Span<const double> bounds_;
  std::array<std::atomic<uint64_t>, kMaxBounds + 1> buckets_{};
  std::atomic<double> sum_{0};
};

class MetricsText {
 public:
  using Labels = std::initializer_list<std::pair<absl::string_view, absl::string_view>>;

  // Begins a family. A counter's name ends with "_total".
  void Family(absl::string_view name, absl::string_view type, absl::string_view help);
  // Samples of the family that was begun last.
  void Sample(Labels labels, double value);
  void Sample(Labels labels, uint64_t value);
  void Sample(Labels labels, int64_t value);
  void Sample(Labels labels, const Histogram& histogram);

  // A family of one sample without labels.
  void Single(absl::string_view name, absl::string_view type, absl::string_view help, double value);

  const std::string& text() const { return text_; }

  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

 private:
  void Line(absl::string_view suffix, Labels labels, absl::string_view le, absl::string_view value);

  std::string family_;
  std::string text_;
};

}  // namespace dovetail

#endif  // DOVETAIL_BASE_METRICS_H_
