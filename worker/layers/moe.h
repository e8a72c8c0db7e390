// Moe: x += sum of w_i * expert_i(norm(x)) over the experts that the router chooses for each row,
// plus the shared expert where the model has one; each expert is an Mlp of its own.
//
// Rows are grouped by expert, so that each expert's weights are read once for all its rows. The sum
// of a row runs over its slots, best expert first and the shared one last (docs/numerics.md), so
// neither the grouping nor the rows of others change its bits.
#ifndef DOVETAIL_WORKER_LAYERS_MOE_H_
#define DOVETAIL_WORKER_LAYERS_MOE_H_

#include <cstdint>

#include "model/model_config.h"
#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

struct MoeWeights {
  RmsNorm norm;
  Linear router;
  const float* choice_bias = nullptr;  // [experts], or none
  ExpertLinear gate;
  ExpertLinear up;
  ExpertLinear down;
  // The shared expert and its own gate; without weight: none.
  Linear shared_gate_proj;
  Linear shared_up_proj;
  Linear shared_down_proj;
  Linear shared_gate;
};

class Moe : public Layer {
 public:
  Moe(const MoeWeights& weights, const model::ExpertConfig& config, model::Activation activation);
  void Forward(StepContext& step) const override;

 private:
  // One expert with the rows that chose it, or the shared one with all rows.
  struct Part {
    Linear gate_proj, up_proj, down_proj;
    LinearInput input, activated;
    float *gate, *up, *y;
    int32_t rows;
  };
  struct Inputs {
    LinearInput normed;    // rows of the step
    LinearInput gathered;  // pairs
    LinearInput activated;
    LinearInput shared_activated;
  };

  bool has_shared() const { return w_.shared_gate_proj.weight != nullptr; }
  int32_t num_parts() const { return config_.count + (has_shared() ? 1 : 0); }
  int32_t RowsOfPart(const StepContext& step, int32_t part) const;
  Part PartOf(const StepContext& step, const Inputs& inputs, int32_t part) const;

  void Route(StepContext& step, const LinearInput& normed) const;
  void FillSlots(StepContext& step, int64_t begin, int64_t end) const;
  void SortPairs(StepContext& step) const;
  void Gather(StepContext& step, const Inputs& inputs) const;
  void Activate(StepContext& step, const Inputs& inputs) const;
  void Combine(StepContext& step) const;

  // Runs fn(part, first panel, past the last) for all panels of all parts in one phase: so many of
  // each expert, so many of the shared one. Threads share by work.
  template <typename Fn>
  void ForPanels(StepContext& step, int64_t expert_panels, int64_t shared_panels,
                 const Fn& fn) const;

  MoeWeights w_;
  model::ExpertConfig config_;
  model::Activation activation_;
  int32_t slots_;  // of a row, with the shared expert's
  ActivationForms in_forms_;
  ActivationForms expert_forms_;  // what the routed experts read
  ActivationForms down_forms_;
  ActivationForms shared_down_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_MOE_H_
