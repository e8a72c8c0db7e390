// Moe: x += sum of w_i * expert_i(norm(x)) over the experts that the router chooses for each row,
// plus the shared expert where the model has one; each expert is an Mlp of its own. A Moe computes
// all parts of such a layer, or those that a worker has next to each other in the route: the
// others are on other workers, and what they made or need travels with the frame.
//
// Rows are grouped by expert, so that each expert's weights are read once for all its rows. The sum
// of a row runs over its slots, best expert first and the shared one last (docs/numerics.md), and
// is made in one piece at the end of the layer. So neither the grouping, nor the rows of others,
// nor where the parts are changes its bits.
#ifndef DOVETAIL_WORKER_LAYERS_MOE_H_
#define DOVETAIL_WORKER_LAYERS_MOE_H_

#include <cstdint>
#include <vector>

#include "model/model_config.h"
#include "worker/layers/block_counter.h"
#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

// Experts of this worker that are stored one after another.
struct ExpertRange {
  int32_t count = 0;
  ExpertLinear gate;
  ExpertLinear up;
  ExpertLinear down;
};

// The parts that are here, and where the others are.
struct MoeWeights {
  RmsNorm norm;
  Linear router;                       // without weight: not here
  const float* choice_bias = nullptr;  // [experts], or none
  // The shared expert and its own gate; without weight: not here, or none.
  Linear shared_gate_proj;
  Linear shared_up_proj;
  Linear shared_down_proj;
  Linear shared_gate;
  std::vector<ExpertRange> experts;  // in the order of the route
  // The place of each expert in the order in which the route comes to the experts; those of
  // `experts` have the places from first_place on.
  std::vector<int32_t> place_of;
  int32_t first_place = 0;
  // Where workers share the rows of all parts: the columns that each makes of an expert's activated
  // ones, of the shared expert's, and of what each of them and the whole layer makes.
  MemberColumns inner, shared_inner, outer;
};

class Moe : public Layer {
 public:
  Moe(MoeWeights weights, const model::ExpertConfig& config, model::Activation activation);
  void Forward(StepContext& step) const override;

  // Whether a frame goes on from here inside the layer, and with how many rows of `y`; after
  // Forward.
  bool ends_layer() const { return past_place_ == config_.count; }
  int64_t NumPartialRows(const StepContext& step) const;
  // The rows of `y` that must have come with a frame whose rows have these slots.
  int64_t NumCarriedRows(const int32_t* slot_experts, int64_t rows) const;

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

  bool has_router() const { return w_.router.weight != nullptr; }
  bool has_shared() const { return w_.shared_gate_proj.weight != nullptr; }
  bool has_experts() const { return past_place_ > w_.first_place; }
  bool has_shared_slot() const { return config_.shared_intermediate_size > 0; }
  int32_t num_experts() const { return past_place_ - w_.first_place; }
  int32_t num_parts() const { return num_experts() + (has_shared() ? 1 : 0); }
  int32_t RowsOfPart(const StepContext& step, int32_t part) const;
  Part PartOf(const StepContext& step, const Inputs& inputs, int32_t part) const;
  Part SharedPart(const StepContext& step, const Inputs& inputs) const;
  // The first own pair, and past the last; pair 0 has row FirstPairRow of `y`.
  Range OwnPairs(const StepContext& step) const;
  int64_t FirstPairRow(int64_t rows) const { return has_shared_slot() ? rows : 0; }

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

  MoeWeights w_;
  model::ExpertConfig config_;
  model::Activation activation_;
  int32_t past_place_;
  int32_t slots_;  // of a row, with the shared expert's
  ActivationForms in_forms_;
  ActivationForms expert_forms_;  // what the routed experts read
  ActivationForms down_forms_;
  ActivationForms shared_down_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_MOE_H_
