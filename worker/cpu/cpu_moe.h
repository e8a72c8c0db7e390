// CpuMoe: a layer with experts on a CPU worker: at most three phases for one row, experts with the
// most rows first, every thread's share by work.
#ifndef DOVETAIL_WORKER_CPU_CPU_MOE_H_
#define DOVETAIL_WORKER_CPU_CPU_MOE_H_

#include <cstdint>
#include <utility>

#include "worker/cpu/block_counter.h"
#include "worker/cpu/cpu_ops.h"
#include "worker/layers/moe.h"

namespace dovetail::worker {

class CpuMoe : public Moe {
 public:
  // `ops` outlives it.
  CpuMoe(CpuOps* ops, MoeWeights weights, const model::ExpertConfig& config,
         model::Activation activation)
      : Moe(std::move(weights), config, activation), cpu_(*ops) {}
  void Forward(StepContext& step) const override;

 private:
  // One expert with the rows that chose it, or the shared one with all rows.
  struct Part {
    Linear gate_proj, up_proj, down_proj;
    LinearInput input, activated;
    float *gate, *up, *y;  // own columns
    int32_t rows;
    int32_t inner_cols;  // of all members
    int32_t first_col;   // own
  };
  struct Inputs {
    LinearInput normed;    // rows of the step
    LinearInput gathered;  // own pairs
    LinearInput activated;
    LinearInput shared_activated;
  };

  int32_t num_parts() const { return num_experts() + (has_shared() ? 1 : 0); }
  int32_t RowsOfPart(const StepContext& step, int32_t part) const;
  Part PartOf(const StepContext& step, const Inputs& inputs, int32_t part) const;
  Part SharedPart(const StepContext& step, const Inputs& inputs) const;
  // The first own pair, and past the last.
  Range OwnPairs(const StepContext& step) const;

  void Route(StepContext& step, const LinearInput& normed) const;
  void FillSlots(StepContext& step, int64_t begin, int64_t end) const;
  void SortPairs(StepContext& step) const;
  void ComputeParts(StepContext& step, const LinearInput& normed) const;
  void OrderExperts(StepContext& step) const;
  void Gather(StepContext& step, const Inputs& inputs) const;
  // Gate and up of panels [first_panel, past_panel) become what down reads.
  void ActivatePart(StepContext& step, const Part& part, int64_t first_panel,
                    int64_t past_panel) const;
  void GatherActivated(StepContext& step, const Inputs& inputs) const;
  void Combine(StepContext& step) const;

  // The panels of a matrix that each expert has, and of that of the shared one.
  struct Panels {
    int64_t of_expert = 0, of_shared = 0;
    int64_t Of(bool shared) const { return shared ? of_shared : of_expert; }
  };
  Panels UpPanels() const;
  Panels DownPanels() const;
  BlockCounter BlocksOf(const StepContext& step, const Panels& up_panels, int32_t part) const;
  // Runs fn(part, first panel, past the last) for all panels of all parts in one phase. Threads
  // share by work; parts with the most rows come first, so that what is left to the end is small.
  template <typename Fn>
  void ForPanels(StepContext& step, const Panels& panels, const Fn& fn) const;
  // The parts that have rows, in that order: fn(part) until it returns false.
  template <typename Fn>
  void ForBusyParts(const StepContext& step, const Fn& fn) const;

  CpuOps& cpu_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_CPU_CPU_MOE_H_
