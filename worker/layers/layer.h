// Layer: one op of the route, bound to its weights; StepContext: what it works on.
//
// Layers are bound once, when a plan is loaded, and are constant afterwards: a step passes through
// them with a StepContext. Forward() runs on the executor's thread; what it is made of are StepOps.
// It allocates nothing and takes no lock.
#ifndef DOVETAIL_WORKER_LAYERS_LAYER_H_
#define DOVETAIL_WORKER_LAYERS_LAYER_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/range.h"
#include "kernels/ops.h"
#include "worker/all_gather.h"
#include "worker/workspace.h"

namespace dovetail::transport {
class ComingPartials;
}

namespace dovetail::worker {

class StepOps;

struct StepContext {
  StepOps& ops;
  const Workspace& ws;

  // The step: `rows` tokens of `sequences`, in row order.
  int32_t rows = 0;
  absl::Span<const kernels::SequenceRows> sequences;
  absl::Span<const int32_t> tokens;
  absl::Span<const int32_t> logit_rows;  // rows whose logits are wanted, ascending

  // Of those rows, in the order of logit_rows, the ranges that lm_head is computed for.
  absl::Span<const Range> head_rows;
  // Of those, the ranges whose logits somebody looks at; of the others the best token is enough.
  absl::Span<const Range> logits_wanted;

  // The residual stream, in ws.x; the last norm leaves the rows whose logits are wanted.
  float* x = nullptr;
  int32_t x_rows = 0;

  // The ops that the current layer stands for, by their numbers in the model, and which of them it
  // is at. Set by the executor's thread.
  absl::Span<const uint32_t> op_numbers;
  int32_t part = 0;
  // Cleared by whoever sees a value that is not finite, where that is known before the step's end.
  std::atomic<bool> finite{true};

  // Of a segment whose rows several workers share; null in the others.
  AllGather* gather = nullptr;
  // What the workers before this one make of the layer that the segment begins inside of: in host()
  // when it was received, which whoever reads it does. Null: it is there, or there is none.
  transport::ComingPartials* partials = nullptr;
  // Of the first operation that failed; later gathers do nothing. Set by the executor's thread.
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

// Brings together the columns of all members in x, [rows, stride]; nothing where they are whole.
void GatherColumns(StepContext& step, float* x, int64_t stride, int64_t rows,
                   const MemberColumns& columns);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_LAYER_H_
