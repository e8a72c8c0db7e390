// BindMoe: the parts of a layer with experts that a worker has next to each other, as one layer.
#ifndef DOVETAIL_WORKER_BIND_MOE_H_
#define DOVETAIL_WORKER_BIND_MOE_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "base/route.h"
#include "worker/layers/moe.h"
#include "worker/layers/step_ops.h"
#include "worker/weight_store.h"

namespace dovetail::worker {

// The weights of experts of another worker, which are streamed; null: they are in the own store.
using FindPeer = absl::FunctionRef<const WeightStore*(const Op& experts)>;

// Of `ops`, which outlives it. `parts`: ops of one layer, owned or streamed, neighbours in the
// route. `experts`: all kExperts ops of that layer, in the order of the route.
std::unique_ptr<Moe> BindMoe(
    StepOps* ops, const WeightStore& store, absl::Span<const Op> parts,
    absl::Span<const Op> experts,
    FindPeer find_peer = [](const Op&) -> const WeightStore* { return nullptr; });

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_BIND_MOE_H_
