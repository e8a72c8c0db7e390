#include "base/metrics.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"

namespace dovetail {
namespace {

// The shortest text that gives the same number: 0.25 and not 0.250000; counts without an exponent.
std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  if (std::abs(value) < 1e15 && value == std::floor(value)) {
    return absl::StrCat(static_cast<int64_t>(value));
  }
  for (int digits = 6; digits < 17; ++digits) {
    std::string text = absl::StrFormat("%.*g", digits, value);
    if (std::strtod(text.c_str(), nullptr) == value) return text;
  }
  return absl::StrFormat("%.17g", value);
}

std::string EscapedLabel(absl::string_view value) {
  return absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}});
}

}  // namespace

Histogram::Histogram(absl::Span<const double> bounds) : bounds_(bounds) {
  DT_CHECK(bounds.size() <= kMaxBounds);
  DT_CHECK(std::is_sorted(bounds.begin(), bounds.end()));
}

void Histogram::Observe(double value, uint64_t count) {
  if (std::isnan(value) || count == 0) return;
  const size_t bucket = static_cast<size_t>(
      std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
  buckets_[bucket].fetch_add(count, std::memory_order_relaxed);
  sum_.fetch_add(value * static_cast<double>(count), std::memory_order_relaxed);
}

void MetricsText::Family(absl::string_view name, absl::string_view type, absl::string_view help) {
  family_ = std::string(name);
  absl::StrAppend(&text_, "# HELP ", name, " ",
                  absl::StrReplaceAll(help, {{"\\", "\\\\"}, {"\n", "\\n"}}), "\n# TYPE ", name,
                  " ", type, "\n");
}

void MetricsText::Sample(Labels labels, double value) { Line("", labels, "", Number(value)); }

void MetricsText::Sample(Labels labels, uint64_t value) {
  Line("", labels, "", absl::StrCat(value));
}

void MetricsText::Sample(Labels labels, int64_t value) {
  Line("", labels, "", absl::StrCat(value));
}

void MetricsText::Sample(Labels labels, const Histogram& histogram) {
  uint64_t count = 0;
  for (size_t i = 0; i < histogram.bounds().size(); ++i) {
    count += histogram.bucket(i);
    Line("_bucket", labels, Number(histogram.bounds()[i]), absl::StrCat(count));
  }
  // The count is what the buckets say, so that they agree while others observe.
  count += histogram.bucket(histogram.bounds().size());
  Line("_bucket", labels, "+Inf", absl::StrCat(count));
  Line("_sum", labels, "", Number(histogram.sum()));
  Line("_count", labels, "", absl::StrCat(count));
}

void MetricsText::Single(absl::string_view name, absl::string_view type, absl::string_view help,
                         double value) {
  Family(name, type, help);
  Sample({}, value);
}

void MetricsText::Line(absl::string_view suffix, Labels labels, absl::string_view le,
                       absl::string_view value) {
  absl::StrAppend(&text_, family_, suffix);
  char open = '{';
  for (const auto& [name, label] : labels) {
    absl::StrAppend(&text_, std::string(1, open), name, "=\"", EscapedLabel(label), "\"");
    open = ',';
  }
  if (!le.empty()) {
    absl::StrAppend(&text_, std::string(1, open), "le=\"", le, "\"");
    open = ',';
  }
  absl::StrAppend(&text_, open == ',' ? "} " : " ", value, "\n");
}

}  // namespace dovetail
