// CpuOps: a CPU worker's operations, shared between the threads of a pool by slices of the kernels'
// units (kernels/ops.h).
#ifndef DOVETAIL_WORKER_CPU_CPU_OPS_H_
#define DOVETAIL_WORKER_CPU_CPU_OPS_H_

#include <cstdint>
#include <memory>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "worker/layers/step_ops.h"

namespace dovetail::worker {

inline constexpr int64_t kPanelGrain = 2;  // panels that a thread takes at least: a whole tile

// y = act(gate) * up, all [rows, cols] and dense.
struct Gated {
  model::Activation activation = model::Activation::kSilu;
  float* gate = nullptr;
  const float* up = nullptr;
  float* y = nullptr;
  int32_t cols = 0;
};

class CpuOps : public StepOps {
 public:
  // All outlive it.
  CpuOps(const kernels::KernelTable* kernels, ThreadPool* pool, const Workspace* ws);

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

  const HostRows& host() const override { return host_; }
  void CopyBlocks(absl::Span<const KvRegion> regions,
                  absl::Span<const transport::BlockCopy> copies) override;
  absl::Status Begin(StepContext& /*step*/, const SegmentVisit& /*visit*/) override {
    return absl::OkStatus();
  }
  void RunLayers(StepContext& /*step*/, const SegmentVisit& /*visit*/,
                 absl::FunctionRef<void()> forward) override {
    forward();
  }
  absl::Status Finish(StepContext& step, const SegmentVisit& visit, int32_t* not_finite) override;

  // --- For CpuMoe, which shares its phases itself.

  const kernels::KernelTable& kernels() const { return kernels_; }
  ThreadPool& pool() { return pool_; }

  // Runs fn(begin, end) over [0, rows). Few elements, as in decoding, are done by the caller alone:
  // that costs less than a barrier and leaves the same bits.
  template <typename Fn>
  void ForRows(int64_t rows, int64_t elements_per_row, const Fn& fn) {
    constexpr int64_t kInlineElements = 4096;
    if (rows <= 1 || rows * elements_per_row <= kInlineElements) {
      if (rows > 0) fn(int64_t{0}, rows);
      return;
    }
    pool_.Share(rows, 1, fn);
  }
  // Rows [begin, end).
  void QuantizeRows(const LinearInput& input, int64_t begin, int64_t end, const Range& columns);
  // The activation function in `columns` of all rows, and what it gives in the forms of
  // `activated`.
  void Activate(const Gated& gated, int64_t rows, const Range& columns,
                const LinearInput& activated, const Range& activated_columns);
  // The slice [begin, end) of the panels of `product`; returns its first and past-the-last column.
  Range RunProductSlice(StepContext& step, const Product& product, const LinearInput& input,
                        int32_t rows, int64_t begin, int64_t end);
  // Looks at columns [begin, end) of `rows` rows.
  void CheckFinite(StepContext& step, const float* x, int64_t stride, int64_t rows, int64_t begin,
                   int64_t end);

 private:
  void RunGated(const Gated& gated, int64_t begin, int64_t end, const Range& columns);
  void Multiply(StepContext& step, const Linear& linear, const kernels::MatmulArgs& args,
                int64_t begin, int64_t end);

  const kernels::KernelTable& kernels_;
  ThreadPool& pool_;
  HostRows host_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_CPU_CPU_OPS_H_
