#include "coordinator/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace dovetail::coordinator {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    DT_CHECK(!stop.empty());
    Pattern pattern{stop, std::vector<size_t>(stop.size() + 1, 0)};
    for (size_t i = 1, k = 0; i < stop.size(); ++i) {
      while (k > 0 && stop[i] != stop[k]) k = pattern.fallback[k];
      if (stop[i] == stop[k]) ++k;
      pattern.fallback[i + 1] = k;
    }
    patterns_.push_back(std::move(pattern));
  }
}

void StopMatcher::Pattern::Advance(char byte) {
  while (matched > 0 && byte != text[matched]) matched = fallback[matched];
  if (byte == text[matched]) ++matched;
}

std::string StopMatcher::Push(absl::string_view text) {
  if (stopped_) return "";
  size_t held_bytes = held_.size();
  held_.append(text.data(), text.size());
  for (size_t i = held_.size() - text.size(); i < held_.size(); ++i) {
    size_t stop_bytes = 0;
    held_bytes = 0;
    for (Pattern& pattern : patterns_) {
      pattern.Advance(held_[i]);
      if (pattern.matched == pattern.text.size())
        stop_bytes = std::max(stop_bytes, pattern.matched);
      held_bytes = std::max(held_bytes, pattern.matched);
    }
    if (stop_bytes == 0) continue;
    stopped_ = true;
    std::string before = held_.substr(0, i + 1 - stop_bytes);
    stop_ = held_.substr(i + 1 - stop_bytes, stop_bytes);
    held_.clear();
    return before;
  }
  std::string certain = held_.substr(0, held_.size() - held_bytes);
  held_.erase(0, held_.size() - held_bytes);
  return certain;
}

std::string StopMatcher::Finish() { return stopped_ ? "" : std::exchange(held_, ""); }

}  // namespace dovetail::coordinator
