// DeviceOps: a GPU worker's operations: kernels on its stream, with the bits of CpuOps.
//
// The host keeps what it does better: it looks embeddings up in the mapped file (where the head
// has another table), computes rotary angles in double, and draws tokens at a temperature. Nothing
// is enqueued before RunLayers() but copies of blocks and what comes by a link, and nobody waits
// for the GPU before Finish(), which also learns from it which op made a value that is not finite.
#ifndef DOVETAIL_WORKER_DEVICE_DEVICE_OPS_H_
#define DOVETAIL_WORKER_DEVICE_DEVICE_OPS_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "base/step_shape.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "worker/device/copy_list.h"
#include "worker/device/device.h"
#include "worker/device/expert_stream.h"
#include "worker/device/graph_cache.h"
#include "worker/layers/step_ops.h"

namespace dovetail::worker {

class DeviceOps : public StepOps {
 public:
  // All outlive it. `kernels` and `pool` are the host's.
  DeviceOps(Device* device, const kernels::KernelTable* kernels, ThreadPool* pool,
            const Workspace* ws, std::unique_ptr<Staging> staging, const RowShape& row_shape,
            int32_t vocab_size, int32_t context_length)
      : row_shape_(row_shape),
        vocab_size_(vocab_size),
        max_splits_((context_length + kKvSplitTokens - 1) / kKvSplitTokens),
        max_blocks_((context_length + kKvBlockTokens - 1) / kKvBlockTokens),
        device_(*device),
        kernels_(device->kernels()),
        host_kernels_(*kernels),
        pool_(*pool),
        ws_(*ws),
        staging_(std::move(staging)),
        graphs_(device, kMaxGraphKernels),
        stream_(device, ws->stream, ws->stream_bytes) {}

  void Embed(StepContext& step, const kernels::EmbeddingArgs& args, bool in_head) override;
  void FillRopeAngles(StepContext& step, absl::Span<const float> inv_freq, float factor,
                      float* cos_sin) override;
  void NormAndQuantize(StepContext& step, const RmsNorm& norm, const float* x, float* y,
                       const LinearInput& input, int64_t rows) override;
  void AddNormed(StepContext& step, const RmsNorm& norm, const float* y) override;
  void TakeLogitRows(StepContext& step, const RmsNorm& norm) override;
  void Quantize(StepContext& step, const LinearInput& input, int64_t rows,
                const Range& columns) override;
  void Products(StepContext& step, absl::Span<const Product> products, const LinearInput& input,
                int32_t rows, bool check_finite) override;
  void GatedProducts(StepContext& step, const GatedProduct& product, const LinearInput& input,
                     int32_t rows) override;
  void HeadProducts(StepContext& step, const HeadProduct& product, const LinearInput& input,
                    int32_t rows) override;
  void SplitHeads(StepContext& step, const SplitQueries& queries, int64_t vectors) override;
  void RotateAndStore(StepContext& step, const HeadRows& heads) override;
  void Attend(StepContext& step, kernels::AttentionArgs args, int64_t first, int64_t end) override;
  void Gather(StepContext& step, absl::Span<const GatheredBuffer> buffers, int64_t rows,
              const MemberColumns& columns, bool at_first) override;
  std::unique_ptr<Moe> MakeMoe(MoeWeights weights, const model::ExpertConfig& config,
                               model::Activation activation) override;

  const HostRows& host() const override { return staging_->rows; }
  void CopyBlocks(absl::Span<const KvRegion> regions,
                  absl::Span<const transport::BlockCopy> copies) override;
  absl::Status Begin(StepContext& step, const SegmentVisit& visit) override;
  void RunLayers(StepContext& step, const SegmentVisit& visit,
                 absl::FunctionRef<void()> forward) override;
  absl::Status Finish(StepContext& step, const SegmentVisit& visit, int32_t* not_finite) override;
  bool makes_partials() const override { return ahead_; }
  absl::Status AwaitPartials() override;

  // --- For DeviceMoe.

  const kernels::DeviceTable& kernels() const { return kernels_; }
  void* stream() { return device_.stream(); }
  const DeviceTables& tables() const { return ws_.tables; }
  ExpertStream& stream_of_experts() { return stream_; }
  // The layer has the slots of all rows. Where the visit ends inside of it, the host gets all that
  // the next worker begins with, ahead of what the experts here are going to make.
  void BringDownAhead(const StepContext& step, const Moe& moe);
  // Where a kernel notes a value that is not finite: of the op that the step is at.
  int32_t* FlagOf(const StepContext& step) const;
  // gate = act(gate) * up, [rows, cols], columns [first, past).
  // gate = act(gate) * up for columns [first, past) of [rows, cols], and the forms of `activated`,
  // which reads gate.
  void RunGated(model::Activation activation, float* gate, const float* up, int32_t cols,
                int64_t rows, const Range& columns, const LinearInput& activated);
  void QuantizeRows(const LinearInput& input, int64_t rows, const Range& columns);

 private:
  // At 2 KB each, of what plans leave to the driver.
  static constexpr int64_t kMaxGraphKernels = 64 * 1024;

  static bool MayBeGraph(const StepContext& step, const SegmentVisit& visit);
  static CopyList::Way WayOf(const StepContext& step);
  bool SignalsInLayers(const StepContext& step, const SegmentVisit& visit) const;
  static bool LeavesAhead(const StepContext& step, const SegmentVisit& visit);
  bool FetchesLogits(const SegmentVisit& visit) const;
  // Splits of the longest context among those of rows [first, end).
  static int64_t SplitsOf(const StepContext& step, int64_t first, int64_t end);
  absl::Span<const kernels::SequenceRows> SequencesOnDevice(const StepContext& step) const;
  // The step's sequences with addresses of the device, and its other tables.
  void StageTables(const StepContext& step, const SegmentVisit& visit);
  // What every visit ends with.
  void ListRows(const StepContext& step, const SegmentVisit& visit, CopyList* down) const;
  // The rows' slots, and what was made for them, where a step goes on inside of `moe`.
  void ListSlots(const Moe& moe, int64_t rows, CopyList* down) const;
  void ListPartials(const Moe& moe, int64_t rows, CopyList* down) const;
  // Behind the layers: what the host is to have and has not, but logits.
  void BringDown(const StepContext& step, const SegmentVisit& visit);
  // The residual stream goes to where the next worker looks for it.
  absl::Status LeaveByLink(const StepContext& step, const StepLinks& links);
  // The first of `op_numbers` whose flag is up; all flags are down afterwards.
  int32_t TakeFlags(absl::Span<const uint32_t> op_numbers);

  template <typename T>
  void UploadArray(T* to, const T* from, int64_t count) {
    if (count > 0) device_.Upload(to, from, count * static_cast<int64_t>(sizeof(T)));
  }
  template <typename T>
  void DownloadArray(T* to, const T* from, int64_t count) {
    if (count > 0) device_.Download(to, from, count * static_cast<int64_t>(sizeof(T)));
  }

  const RowShape row_shape_;
  const int64_t vocab_size_;
  const int64_t max_splits_;  // of a context
  const int64_t max_blocks_;  // the same
  Device& device_;
  const kernels::DeviceTable& kernels_;
  const kernels::KernelTable& host_kernels_;
  ThreadPool& pool_;
  const Workspace& ws_;
  std::unique_ptr<Staging> staging_;
  int32_t num_places_ = 0;  // of tables().places that are given away
  GraphCache graphs_;
  ExpertStream stream_;
  // Of the current visit.
  CopyList up_;               // what RunLayers() begins with
  int64_t fixed_splits_ = 0;  // of every context, where layers may be taken down; 0: as they are
  const SegmentVisit* visit_ = nullptr;  // while its layers are run
  bool ahead_ = false;  // one signal is given ahead of the last layer's experts, one behind them
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_DEVICE_DEVICE_OPS_H_
