// Moe: x += sum of w_i * expert_i(norm(x)) over the experts that the router chooses for each row,
// plus the shared expert where the model has one; each expert is an Mlp of its own. A Moe computes
// all parts of such a layer, or those that a worker has next to each other in the route: the
// others are on other workers, and what they made or need travels with the frame.
//
// Rows are grouped by expert, so that each expert's weights are read once for all its rows. The sum
// of a row runs over its slots, best expert first and the shared one last (docs/numerics.md), and
// is made in one piece at the end of the layer. So neither the grouping, nor the rows of others,
// nor where the parts are changes its bits. Nor does it matter when they are computed: what experts
// here make is looked at in the sum alone, and workers make theirs at the same time where they can.
// How the rows are grouped and shared is the device's: Moe has what all kinds need
// (StepOps::MakeMoe makes one).
#ifndef DOVETAIL_WORKER_LAYERS_MOE_H_
#define DOVETAIL_WORKER_LAYERS_MOE_H_

#include <cstdint>
#include <vector>

#include "model/model_config.h"
#include "worker/layers/layer.h"
#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace dovetail::worker {

// Experts that are stored one after another.
struct ExpertRange {
  int32_t count = 0;
  bool streamed = false;  // of another worker, in the host's memory (worker/device/expert_stream.h)
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
  // Whether a frame goes on from here inside the layer, and with how many rows of `y`, for a step
  // of so many rows: with `rows` and, where there is a place, expert_begin[place] others, which
  // says how its pairs are numbered.
  bool ends_layer() const { return past_place_ == config_.count; }
  // Whether some of those rows are made here.
  bool makes_partials() const { return has_shared() || has_experts(); }
  struct PartialRows {
    int64_t rows = 0;
    int32_t place = -1;  // none
  };
  PartialRows PartialRowsOf(int64_t rows) const;
  int64_t NumPartialRows(const int32_t* expert_begin, int64_t rows) const;
  // The rows of `y` that must have come with a frame whose rows have these slots.
  int64_t NumCarriedRows(const int32_t* slot_experts, int64_t rows) const;

 protected:
  Moe(MoeWeights weights, const model::ExpertConfig& config, model::Activation activation);

  bool has_router() const { return w_.router.weight != nullptr; }
  bool has_shared() const { return w_.shared_gate_proj.weight != nullptr; }
  bool has_experts() const { return past_place_ > w_.first_place; }
  bool has_shared_slot() const { return config_.shared_intermediate_size > 0; }
  int32_t num_experts() const { return past_place_ - w_.first_place; }
  // Pair 0 has this row of `y`.
  int64_t FirstPairRow(int64_t rows) const { return has_shared_slot() ? rows : 0; }
  // The number of the last part among the layer's.
  int32_t last_part() const {
    return (has_router() ? 1 : 0) + (has_shared() ? 1 : 0) +
           static_cast<int32_t>(w_.experts.size()) - 1;
  }

  // The products of the router and of the shared expert's gate, checked.
  void ScoreRows(StepContext& step, const LinearInput& normed) const;

  const MoeWeights w_;
  const model::ExpertConfig config_;
  const model::Activation activation_;
  int32_t past_place_;
  int32_t slots_;  // of a row, with the shared expert's
  ActivationForms in_forms_;
  ActivationForms expert_forms_;  // what the routed experts read
  ActivationForms down_forms_;
  ActivationForms shared_down_forms_;
};

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_LAYERS_MOE_H_
