// Layer: one op of the route, bound to its weights; StepContext: what it works on.
//
// Layers are bound once, when a plan is loaded, and are constant afterwards: a step passes through
// them with a StepContext. Forward() runs on the executor's thread and shares its phases with the
// pool; it allocates nothing and takes no lock.
#ifndef DOVETAIL_WORKER_LAYERS_LAYER_H_
#define DOVETAIL_WORKER_LAYERS_LAYER_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "worker/all_gather.h"
#include "worker/workspace.h"

namespace dovetail::worker {

struct StepContext {
  const kernels::KernelTable& kernels;
  ThreadPool& pool;
  Workspace& ws;

  // The step: `rows` tokens of `sequences`, in row order.
  int32_t rows = 0;
  absl::Span<const kernels::SequenceRows> sequences;
  absl::Span<const int32_t> tokens;
  absl::Span<const int32_t> logit_rows;  // rows whose logits are wanted, ascending

  // Of those rows, in the order of logit_rows, the ranges that lm_head is computed for.
  absl::Span<const Range> head_rows;

  // The residual stream, in ws.x; the last norm leaves the rows whose logits are wanted.
  float* x = nullptr;
  int32_t x_rows = 0;

  // Which of its ops a layer that stands for several is at. Set by the executor's thread.
  int32_t part = 0;
  // Cleared by whoever sees a value that is not finite.
  std::atomic<bool> finite{true};

  // Of a segment whose rows several workers share; null in the others.
  AllGather* gather = nullptr;
  // Of the first gather that failed; later ones do nothing. Set by the executor's thread.
  absl::Status status;
};

// The columns that each member of a segment makes of what an op makes; none: this worker makes all.
struct MemberColumns {
  std::vector<Range> parts;  // by member
  int32_t member = 0;        // this worker

  bool whole() const { return parts.empty(); }
  int64_t begin() const { return parts.empty() ? 0 : parts[member].begin; }
};

class Layer {
 public:
  virtual ~Layer() = default;
  virtual void Forward(StepContext& step) const = 0;
};

// Runs fn(begin, end) over [0, rows). Few elements, as in decoding, are done by the caller alone:
// that costs less than a barrier and leaves the same bits.
template <typename Fn>
void ForRows(StepContext& step, int64_t rows, int64_t elements_per_row, const Fn& fn) {
  constexpr int64_t kInlineElements = 4096;
  if (rows <= 1 || rows * elements_per_row <= kInlineElements) {
    if (rows > 0) fn(int64_t{0}, rows);
    return;
  }
  step.pool.Share(rows, 1, fn);
}

// Brings together the columns of all members in x, [rows, stride]; nothing where they are whole.
void GatherColumns(StepContext& step, float* x, int64_t stride, int64_t rows,
                   const MemberColumns& columns);
// The same of any buffers; `at_first`: at the first member alone.
void RunGather(StepContext& step, absl::Span<const GatheredBuffer> buffers, int64_t rows,
               const MemberColumns& columns, bool at_first);

// Looks at columns [begin, end) of `rows` rows.
void CheckFinite(StepContext& step, const float* x, int64_t stride, int64_t rows, int64_t begin,
                 int64_t end);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_LAYER_H_
