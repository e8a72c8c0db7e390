// GraphCache: what a device has taken down of a segment's kernels, by the shape of the step that
// they were for, so that the next step of that shape starts all of them with one call.
//
// Kernels get what differs between steps of one shape (tokens, positions, blocks, how many rows
// were made for slots) from tables in memory and never as arguments, and copies are those of a
// CopyList; what an argument depends on is in GraphKey. A shape
// is taken down when it comes for the second time; steps that come once are not worth it. The least
// recently used graphs go when there are too many kernels in all.
//
// Used by the executor's thread. Allocates for a shape's first and second step, and never after.
#ifndef DOVETAIL_WORKER_DEVICE_GRAPH_CACHE_H_
#define DOVETAIL_WORKER_DEVICE_GRAPH_CACHE_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <tuple>

#include "absl/functional/function_ref.h"
#include "worker/device/device.h"
#include "worker/layers/layer.h"

namespace dovetail::worker {

struct GraphKey {
  uint32_t segment = 0;
  int32_t rows = 0;
  int32_t x_rows = 0;
  int32_t sequences = 0;
  int32_t logit_rows = 0;
  int32_t head_rows = 0;
  int64_t splits = 0;  // of the longest context, at most
  // Rows come and go by links, and not by the host; the graph ends with the signal.
  bool link_in = false;
  bool link_out = false;
  bool signals = false;

  auto Fields() const {
    return std::tie(segment, rows, x_rows, sequences, logit_rows, head_rows, splits, link_in,
                    link_out, signals);
  }
  bool operator<(const GraphKey& other) const { return Fields() < other.Fields(); }
};

class GraphCache {
 public:
  // Steps of more rows compute for longer than it takes to start their kernels.
  static constexpr int32_t kMaxRows = 64;

  // `device` outlives it. At most `max_kernels` in all graphs: a driver needs one or two KB for
  // each.
  GraphCache(Device* device, int64_t max_kernels) : device_(*device), max_kernels_(max_kernels) {}

  // Enqueues what `forward` would for a step of this shape, and leaves step.x_rows as it would.
  void Run(const GraphKey& key, StepContext& step, absl::FunctionRef<void()> forward);

 private:
  struct Entry {
    std::unique_ptr<DeviceGraph> graph;  // null: seen once
    int32_t x_rows_after = 0;
    std::list<GraphKey>::iterator used;
  };
  Entry& Touch(const GraphKey& key, bool* is_new);
  void Capture(Entry* entry, StepContext& step, absl::FunctionRef<void()> forward);
  void Trim();

  Device& device_;
  const int64_t max_kernels_;
  std::map<GraphKey, Entry> entries_;
  std::list<GraphKey> order_;  // most recently used first
  int64_t num_kernels_ = 0;
  bool refused_ = false;  // the device takes nothing down
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_GRAPH_CACHE_H_
