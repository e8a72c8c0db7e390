#include "worker/device/graph_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace dovetail::worker {
namespace {

// Shapes that are remembered, with and without a graph.
constexpr size_t kMaxShapes = 1024;

}  // namespace

GraphCache::Entry& GraphCache::Touch(const GraphKey& key, bool* is_new) {
  const auto [at, inserted] = entries_.try_emplace(key);
  *is_new = inserted;
  if (inserted) {
    order_.push_front(key);
    at->second.used = order_.begin();
  } else {
    order_.splice(order_.begin(), order_, at->second.used);
  }
  return at->second;
}

void GraphCache::Run(const GraphKey& key, StepContext& step, absl::FunctionRef<void()> forward) {
  if (refused_) return forward();
  bool is_new = false;
  Entry& entry = Touch(key, &is_new);
  if (is_new) {
    Trim();
    return forward();
  }
  if (entry.graph == nullptr) {
    const int32_t x_rows = step.x_rows;
    Capture(&entry, step, forward);
    if (entry.graph == nullptr) {  // nothing was run
      step.x_rows = x_rows;
      return forward();
    }
  }
  step.x_rows = entry.x_rows_after;
  device_.Launch(*entry.graph);
  Trim();
}

void GraphCache::Capture(Entry* entry, StepContext& step, absl::FunctionRef<void()> forward) {
  device_.BeginCapture();
  forward();
  auto graph = device_.EndCapture();
  if (!graph.ok()) {
    LogWarn(absl::StrCat("kernels are started one by one: ", graph.status().message()));
    refused_ = true;
    return;
  }
  entry->graph = *std::move(graph);
  entry->x_rows_after = step.x_rows;
  num_kernels_ += entry->graph->num_kernels();
}

// The one that is in use stays.
void GraphCache::Trim() {
  while (order_.size() > 1 && (num_kernels_ > max_kernels_ || order_.size() > kMaxShapes)) {
    const auto last = entries_.find(order_.back());
    if (last->second.graph != nullptr) num_kernels_ -= last->second.graph->num_kernels();
    entries_.erase(last);
    order_.pop_back();
  }
}

}  // namespace dovetail::worker
