// StepOps: the operations that layers are made of, on one kind of device.
//
// A layer says what is computed, and in which order; StepOps say how. CpuOps (worker/cpu) share
// each operation between the threads of a pool; DeviceOps (worker/device) start kernels on a GPU's
// stream. Both leave the same bits. Pointers in arguments, in the workspace and in weights are
// addresses of the device, which layers never look behind.
//
// One per worker, used by the executor's thread. Operations allocate nothing and may return before
// they are done; what follows sees what they wrote. A value that is not finite is noted with the op
// that made it (StepContext).
#ifndef DOVETAIL_WORKER_LAYERS_STEP_OPS_H_
#define DOVETAIL_WORKER_LAYERS_STEP_OPS_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/ops.h"
#include "model/model_config.h"
#include "transport/step_frame.h"
#include "worker/device/row_link.h"
#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/moe.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

// What becomes of the step's q and k between their products and attention.
struct HeadRows {
  // Of each head or of the whole row, as their columns say; without weight: none. `_parts` of them
  // in a row.
  kernels::RmsNormArgs q_norm, k_norm;
  int64_t q_parts = 1, k_parts = 1;
  kernels::RopeArgs rope_q, rope_k;
  kernels::KvAppendArgs append;  // its sequences are the step's
};

// A query of each head in two parts, [vectors, head_dim]: the first is quantised, the other is
// copied.
struct SplitQueries {
  LinearInput quantized;
  const float* from = nullptr;  // the first one to copy
  int64_t from_stride = 0;
  float* to = nullptr;
  int64_t to_stride = 0;
  int64_t cols = 0;  // that are copied
};

// Of one frame.
struct FrameRows {
  int64_t hidden = 0;    // of the residual stream
  int64_t slots = 0;     // rows whose slots came
  int64_t partials = 0;  // of what was made for them
};

// Links between GPUs by which rows of the residual stream come and go; null: they are in host().
struct StepLinks {
  RowReceiver* in = nullptr;
  RowSender* out = nullptr;
  absl::Duration timeout;  // of each wait
};

// A step's visit of a segment: how it comes in and how it goes on.
struct SegmentVisit {
  uint32_t segment = 0;
  absl::Span<const uint32_t> op_numbers;  // of all ops of the segment
  FrameRows came;
  bool embeds_in_head = false;  // RunLayers() begins with tokens
  const Moe* leaves = nullptr;  // the layer with experts that it ends inside of
  bool logits = false;          // it has the lm_head
  bool streams = false;         // experts are uploaded meanwhile
  StepLinks links;
};

// Of one attention layer's KV cache the blocks, or a part of each (kernels/ops.h), one after the
// other.
struct KvRegion {
  uint8_t* data = nullptr;
  int64_t block_bytes = 0;
};

class StepOps {
 public:
  virtual ~StepOps() = default;

  // step.x and step.x_rows from step.tokens; `args` has the table, as the file has it in the host's
  // memory or, `in_head`, the head's matrix where products read it. Checked.
  virtual void Embed(StepContext& step, const kernels::EmbeddingArgs& args, bool in_head) = 0;
  // The angles of the step's rows, once per visit of a segment: all layers share them.
  virtual void FillRopeAngles(StepContext& step, absl::Span<const float> inv_freq, float factor,
                              float* cos_sin) = 0;
  // Rows [0, rows) of y = norm(x), both dense, and then of the forms of `input`, which reads y.
  virtual void NormAndQuantize(StepContext& step, const RmsNorm& norm, const float* x, float* y,
                               const LinearInput& input, int64_t rows) = 0;
  // x += norm(y) for all rows of the residual stream; y is dense. Checked.
  virtual void AddNormed(StepContext& step, const RmsNorm& norm, const float* y) = 0;
  // The rows whose logits are wanted are normalised and become the residual stream. Checked.
  virtual void TakeLogitRows(StepContext& step, const RmsNorm& norm) = 0;
  // The wanted forms of `columns` (whole blocks) of rows [0, rows).
  virtual void Quantize(StepContext& step, const LinearInput& input, int64_t rows,
                        const Range& columns) = 0;
  // All products over one input.
  virtual void Products(StepContext& step, absl::Span<const Product> products,
                        const LinearInput& input, int32_t rows, bool check_finite) = 0;
  virtual void GatedProducts(StepContext& step, const GatedProduct& product,
                             const LinearInput& input, int32_t rows) = 0;
  virtual void HeadProducts(StepContext& step, const HeadProduct& product, const LinearInput& input,
                            int32_t rows) = 0;
  virtual void SplitHeads(StepContext& step, const SplitQueries& queries, int64_t vectors) = 0;
  // For all rows of the step. What cannot be stored as a finite number is noted.
  virtual void RotateAndStore(StepContext& step, const HeadRows& heads) = 0;
  // Attention of rows [first, end) of the step. `args` says what is attended with, whose q and out
  // begin with row `first`; sequences, tasks and scratch are filled in.
  virtual void Attend(StepContext& step, kernels::AttentionArgs args, int64_t first,
                      int64_t end) = 0;
  // Brings together the columns of all members in rows [0, rows) of `buffers`; nothing where they
  // are whole. `at_first`: at the first member alone.
  virtual void Gather(StepContext& step, absl::Span<const GatheredBuffer> buffers, int64_t rows,
                      const MemberColumns& columns, bool at_first) = 0;

  virtual std::unique_ptr<Moe> MakeMoe(MoeWeights weights, const model::ExpertConfig& config,
                                       model::Activation activation) = 0;

  // --- For ModelRunner.

  // What frames and the sampler read and write, in the host's memory.
  virtual const HostRows& host() const = 0;
  // Copies of KV blocks, in their order: a later one sees what an earlier one left.
  virtual void CopyBlocks(absl::Span<const KvRegion> regions,
                          absl::Span<const transport::BlockCopy> copies) = 0;
  // Before the first layer: takes over what a frame brought to host(): rows of the residual stream,
  // slots, rows that were made for them.
  virtual absl::Status Begin(StepContext& step, const SegmentVisit& visit) = 0;
  // The segment's layers, which `forward` runs, but for an embedding that the host looks up, which
  // was run before. A device that did the same for a step of the same shape may do that again,
  // without `forward`.
  virtual void RunLayers(StepContext& step, const SegmentVisit& visit,
                         absl::FunctionRef<void()> forward) = 0;
  // After the last layer, or the one that failed: waits for all of them, after which the residual
  // stream (unless it went where links.out says), the slots and rows that were made for them where
  // the step is inside a layer, and the logits that somebody looks at are in host(). *not_finite:
  // the first of the segment's ops that made a value that is not finite; -1: none.
  virtual absl::Status Finish(StepContext& step, const SegmentVisit& visit,
                              int32_t* not_finite) = 0;
  // After Finish(): whether it left the rows that are made for slots to the device, which is still
  // at them, so that the step can go on meanwhile; and waits for those. Nothing of host() may be
  // written before that.
  virtual bool makes_partials() const { return false; }
  virtual absl::Status AwaitPartials() { return absl::OkStatus(); }
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_STEP_OPS_H_
