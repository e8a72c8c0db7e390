#include "worker/bind_moe.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace dovetail::worker {
namespace {

using model::WeightRole;

void BindRouter(const WeightStore& store, const Op& op, MoeWeights* weights) {
  weights->router = store.LinearOf(op, WeightRole::kRouter, WeightRole::kRouterBias);
  weights->choice_bias = store.FindVector(op, WeightRole::kChoiceBias);
}

using Columns = WeightStore::Columns;

void BindSharedExperts(const WeightStore& store, const Op& op, MoeWeights* weights) {
  weights->shared_inner = store.ColumnsOf(op, Columns::kInner, WeightRole::kDown);
  weights->shared_gate_proj = store.LinearOf(op, WeightRole::kGate);
  weights->shared_up_proj = store.LinearOf(op, WeightRole::kUp);
  weights->shared_down_proj = store.LinearOf(op, WeightRole::kDown);
  if (store.config.experts.shared_gate) {
    weights->shared_gate = store.LinearOf(op, WeightRole::kSharedGate);
  }
}

void BindExperts(const WeightStore& store, const Op& op, bool streamed, MoeWeights* weights) {
  weights->inner = store.ColumnsOf(op, Columns::kInner, WeightRole::kExpertDown);
  weights->outer = store.ColumnsOf(op, Columns::kOuter, WeightRole::kExpertDown);
  weights->experts.push_back(
      {op.expert_end - op.expert_begin, streamed,
       store.ExpertsOf(op, WeightRole::kExpertGate, WeightRole::kExpertGateBias),
       store.ExpertsOf(op, WeightRole::kExpertUp, WeightRole::kExpertUpBias),
       store.ExpertsOf(op, WeightRole::kExpertDown, WeightRole::kExpertDownBias)});
}

}  // namespace

std::unique_ptr<Moe> BindMoe(StepOps* ops, const WeightStore& store, absl::Span<const Op> parts,
                             absl::Span<const Op> experts, FindPeer find_peer) {
  const model::ModelConfig& config = store.config;
  MoeWeights weights;
  const model::WeightSlot* norm = store.FindSlot(parts[0], WeightRole::kMlpNorm);
  DT_CHECK(norm != nullptr);
  weights.norm = {store.VectorOf(parts[0], WeightRole::kMlpNorm),
                  static_cast<int32_t>(norm->spec.cols), config.rms_norm_eps};
  weights.place_of.resize(config.experts.count);
  int32_t place = 0;
  for (const Op& op : experts) {
    // The first own range; the others follow it.
    const auto own = std::find(parts.begin(), parts.end(), op);
    if (own != parts.end() && weights.experts.empty()) weights.first_place = place;
    if (own != parts.end()) {
      const WeightStore* const peer = find_peer(op);
      BindExperts(peer != nullptr ? *peer : store, op, peer != nullptr, &weights);
    }
    for (int32_t e = op.expert_begin; e < op.expert_end; ++e) weights.place_of[e] = place++;
  }
  for (const Op& op : parts) {
    if (op.kind == OpKind::kRouter) BindRouter(store, op, &weights);
    if (op.kind == OpKind::kSharedExperts) BindSharedExperts(store, op, &weights);
  }
  DT_CHECK(!config.post_norms);  // no family has both
  return ops->MakeMoe(std::move(weights), config.experts, config.activation);
}

}  // namespace dovetail::worker
